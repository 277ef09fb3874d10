/* A plugin for qemu-user that counts the instructions of each inference.
 *
 * The runner marks the beginning and the end of an inference with a system call that does nothing else (`marks 1` in
 * the job file); what its thread executed between the two marks is one line of the file that `out=` names. Blocks are
 * counted when they are entered, so that a count depends on the program and its inputs alone. Other threads are not
 * counted: an inference here has one, and libraries have some of their own that wake by the clock.
 *
 * Only what is used of the plugin interface is declared here; it is the same in its versions 1 to 5.
 * -DQEMU_PLUGIN_API=N says which one is asked for. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*call)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*call)(unsigned, void *), int flags,
                                                 void *data);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id id,
                                                 void (*call)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

__attribute__((visibility("default"))) int qemu_plugin_version = QEMU_PLUGIN_API;

enum { PROCESSORS = 256, NO_REGISTERS = 0, GETPRIORITY = 141, MARK = 0x45444745, BEGIN = 0, END = 1 };

static uint64_t executed[PROCESSORS], begun; /* by thread: each is a processor of its own */
static FILE *out;

static void on_block(unsigned processor, void *instructions) {
  if (processor < PROCESSORS) executed[processor] += (uint64_t)(uintptr_t)instructions;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void on_call(plugin_id id, unsigned processor, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                    uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != GETPRIORITY || a1 != MARK || processor >= PROCESSORS) return;
  uint64_t now = executed[processor];
  if (a2 == BEGIN) begun = now;
  if (a2 == END) {
    fprintf(out, "%" PRIu64 "\n", now - begun);
    fflush(out);
  }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int count, char **words) {
  (void)info;
  for (int i = 0; i < count; i++) {
    if (strncmp(words[i], "out=", 4) == 0) out = fopen(words[i] + 4, "w");
  }
  if (out == NULL) {
    fputs("counter: no file to write, give out=PATH\n", stderr);
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  return 0;
}
