#include "session.h"

/* The runtimes of the program that measures; a program with a model linked in has the one of linked.c instead. */
const struct runtime *const RUNTIMES[] = {&ONNXRUNTIME, &LITERT, NULL};
