#include "library.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "fault.h"

void *library_open(const struct job_library *library) {
  if (access(library->path, R_OK) != 0) {
    fault(STATUS_LIBRARY, "no %s library at %s", library->runtime, library->path);
    return NULL;
  }
  if (library->sha256 != NULL) {
    char hex[DIGEST_TEXT];
    if (!digest_of_file(library->path, hex) || strcmp(hex, library->sha256) != 0) {
      fault(STATUS_LIBRARY, "%s is not the library of %s %s that was asked for", library->path, library->runtime,
            library->version == NULL ? "" : library->version);
      return NULL;
    }
  }
  void *handle = dlopen(library->path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) fault(STATUS_LIBRARY, "cannot load %s: %s", library->path, dlerror());
  return handle;
}

bool library_resolve(void *handle, const struct job_library *library, const struct symbol *symbols, size_t count) {
  for (size_t i = 0; i < count; i++) {
    void *found = dlsym(handle, symbols[i].name);
    if (found == NULL) {
      return fault(STATUS_LIBRARY, "%s has no %s: not the %s library this runner was written for", library->path,
                   symbols[i].name, library->runtime);
    }
    memcpy(symbols[i].place, &found, sizeof found);
  }
  return true;
}

bool library_offers(void *handle, const struct symbol *symbols, size_t count) {
  for (size_t i = 0; i < count; i++) {
    void *found = dlsym(handle, symbols[i].name);
    if (found == NULL) return false;
    memcpy(symbols[i].place, &found, sizeof found);
  }
  return true;
}
