# Models in a firmware project: include this file, set the variables, name what you need as a prerequisite.
#
#   EDGEFIT_FLAGS  = --budget-macs 200k       # flags of `compress`: a budget, data, a target
#   EDGEFIT_INPUTS = $(wildcard data/*)       # files that the flags speak of: newer ones make models anew
#   include path/to/compress.mk
#   firmware: main.o keyword_model.o
#   main.o: keyword_model.h
#
# Rules: %.tflite %.onnx %.mlpackage from %.pt2 (the compressed network); %_model.cc %_model.S %_model.h from
# %.tflite: the file as data, for a runtime; %_net.c %_net.h from %.onnx: C that computes it, without one. For one model alone: keyword.tflite: EDGEFIT_FLAGS = --budget-mb 0.1
# EDGEFIT_PRECISION=int8 takes the int8 file (it needs --data). EDGEFIT_EMBED_FLAGS = --budget-ram 65536 has TFLite
# Micro run the .tflite file in so many bytes, or the make fails.

EDGEFIT           ?= edgefit
EDGEFIT_COMPRESS  ?= $(EDGEFIT) compress
EDGEFIT_FLAGS     ?=
EDGEFIT_INPUTS    ?=
EDGEFIT_PRECISION ?=
EDGEFIT_EMBED_FLAGS ?=
EDGEFIT_BUILD     ?= build/models

# What goes wrong in a rule leaves no half-made target; what is in between is kept for the next time.
.DELETE_ON_ERROR:
.SECONDARY:

.PHONY: edgefit-always
edgefit-always:

# A file that changes only when the tool's version or the flags do: `make EDGEFIT_FLAGS=...` makes models anew.
$(EDGEFIT_BUILD)/%.asked: edgefit-always
	@mkdir -p $(@D)
	@{ $(EDGEFIT) --version && echo '$(subst ','\'',$(EDGEFIT_FLAGS))'; } > $@.new || { rm -f $@.new; exit 1; }
	@if cmp -s $@.new $@; then rm -f $@.new; else mv $@.new $@; fi

# The result folder appears in one step, and only when every limit is held and every check passed.
$(EDGEFIT_BUILD)/%/report.json: %.pt2 $(EDGEFIT_BUILD)/%.asked $(EDGEFIT_INPUTS)
	@$(EDGEFIT_COMPRESS) $< $(EDGEFIT_FLAGS) --quiet --out $(@D).new >$(@D).log || { code=$$?; \
	  [ $$code -ne 1 ] || echo "error: $<: a limit is not held or a check failed: see $(@D).new/report.md" >&2; \
	  exit $$code; }
	@rm -rf $(@D) && mv $(@D).new $(@D) && touch $@

EDGEFIT_MIDDLE = $(if $(EDGEFIT_PRECISION),.$(EDGEFIT_PRECISION))

# $(call edgefit-take,FILE): the file of this name out of the result folder, whole or not at all.
define edgefit-take
@file=$(<D)/$(1); [ -e "$$file" ] || { \
  echo "error: $(<D) has no $(1)" >&2; \
  echo "hint: --formats and EDGEFIT_PRECISION decide what there is" >&2; exit 2; }; \
rm -rf $@.new && cp -R "$$file" $@.new && rm -rf $@ && mv $@.new $@ && touch $@
endef

%.tflite: $(EDGEFIT_BUILD)/%/report.json
	$(call edgefit-take,$(*F)$(EDGEFIT_MIDDLE).tflite)

%.onnx: $(EDGEFIT_BUILD)/%/report.json
	$(call edgefit-take,$(*F)$(EDGEFIT_MIDDLE).onnx)

%.mlpackage: $(EDGEFIT_BUILD)/%/report.json
	$(call edgefit-take,$(*F)$(EDGEFIT_MIDDLE).mlpackage)

%_model.cc: %.tflite
	@$(EDGEFIT) embed $< --out $(@D) --name $(*F)_model --form cc $(EDGEFIT_EMBED_FLAGS)

%_model.S %_model.bin %_model.h: %.tflite
	@$(EDGEFIT) embed $< --out $(@D) --name $(*F)_model --form asm $(EDGEFIT_EMBED_FLAGS)

%_net.c %_net.h: %.onnx
	@$(EDGEFIT) embed $< --out $(@D) --name $(*F)_net --form network
