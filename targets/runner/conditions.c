#define _GNU_SOURCE
#include "conditions.h"

#include <dirent.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "json.h"

#ifdef __ANDROID__
#include <sys/system_properties.h>
#endif

enum { LINE = 256, ZONES = 64 };
static const char CPU[] = "/sys/devices/system/cpu";
static const char THERMAL[] = "/sys/class/thermal";
static const char POWER[] = "/sys/class/power_supply";

/* The first line of a file without surrounding blanks; NULL when there is none. `text` holds it. */
static const char *line_of(char text[LINE], const char *format, ...) __attribute__((format(printf, 2, 3)));

static const char *line_of(char text[LINE], const char *format, ...) {
  char path[LINE * 2];
  va_list rest;
  va_start(rest, format);
  vsnprintf(path, sizeof path, format, rest);
  va_end(rest);
  FILE *file = fopen(path, "r");
  if (file == NULL) return NULL;
  char *found = fgets(text, LINE, file);
  fclose(file);
  if (found == NULL) return NULL;
  text[strcspn(text, "\n")] = '\0';
  return *text == '\0' ? NULL : text;
}

static double number(const char *text) {
  if (text == NULL) return NAN;
  char *end;
  double value = strtod(text, &end);
  return end == text ? NAN : value;
}

/* The value of the first `key: value` or `key=value` line of a file; NULL when there is none. */
static const char *field(char text[LINE], const char *path, const char *key, char mark) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return NULL;
  const char *found = NULL;
  while (found == NULL && fgets(text, LINE, file) != NULL) {
    char *split = strchr(text, mark);
    if (split == NULL || strncmp(text, key, strlen(key)) != 0) continue;
    if (text + strlen(key) + strspn(text + strlen(key), " \t") != split) continue;
    split += 1 + strspn(split + 1, " \t\"");
    split[strcspn(split, "\"\n")] = '\0';
    found = split;
  }
  fclose(file);
  return found;
}

#ifdef __ANDROID__
static const char *property(char text[LINE], const char *name) {
  return __system_property_get(name, text) > 0 ? text : NULL;
}
#endif

static const char *device(char text[LINE]) {
#ifdef __ANDROID__
  return property(text, "ro.product.model");
#else
  const char *found = line_of(text, "/proc/device-tree/model");
  return found != NULL ? found : line_of(text, "/sys/devices/virtual/dmi/id/product_name");
#endif
}

static const char *soc(char text[LINE]) {
#ifdef __ANDROID__
  return property(text, "ro.soc.model");
#else
  const char *found = line_of(text, "/sys/devices/soc0/machine");
  return found != NULL ? found : line_of(text, "/proc/device-tree/compatible");
#endif
}

static const char *cpu(char text[LINE]) {
  static const char *const keys[] = {"model name", "Model", "Hardware", "CPU part"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const char *found = field(text, "/proc/cpuinfo", keys[i], ':');
    if (found != NULL) return found;
  }
  return NULL;
}

double conditions_mhz(int core) {
  char text[LINE];
  return number(line_of(text, "%s/cpu%d/cpufreq/scaling_cur_freq", CPU, core)) / 1000;
}

double conditions_celsius(void) {
  double hottest = NAN;
  for (int zone = 0; zone < ZONES; zone++) {
    char text[LINE];
    double celsius = number(line_of(text, "%s/thermal_zone%d/temp", THERMAL, zone)) / 1000;
    if (!isnan(celsius) && !(celsius <= hottest)) hottest = celsius;
  }
  return hottest;
}

static void write_temperatures(FILE *out, bool *first) {
  json_key(out, first, "temperatures");
  bool none = true;
  for (int zone = 0; zone < ZONES; zone++) {
    char value[LINE], kind[LINE], name[LINE * 2];
    double celsius = number(line_of(value, "%s/thermal_zone%d/temp", THERMAL, zone)) / 1000;
    if (isnan(celsius)) continue;
    const char *known = line_of(kind, "%s/thermal_zone%d/type", THERMAL, zone);
    snprintf(name, sizeof name, "%d %s", zone, known == NULL ? "" : known);
    if (none) fputc('{', out);
    json_number_member(out, &none, name, celsius);
  }
  fputs(none ? "null" : "}", out);
}

/* The name of the first power supply that is a battery; false when there is none. */
static bool battery(char name[LINE]) {
  DIR *folder = opendir(POWER);
  if (folder == NULL) return false;
  bool found = false;
  for (struct dirent *entry; !found && (entry = readdir(folder)) != NULL;) {
    char text[LINE];
    snprintf(name, LINE, "%.200s", entry->d_name);
    const char *kind = line_of(text, "%s/%s/type", POWER, name);
    found = kind != NULL && strcmp(kind, "Battery") == 0;
  }
  closedir(folder);
  return found;
}

double conditions_battery(void) {
  char name[LINE], text[LINE];
  return battery(name) ? number(line_of(text, "%s/%s/capacity", POWER, name)) : NAN;
}

static void write_charging(FILE *out, bool *first) {
  char name[LINE], text[LINE];
  const char *state = battery(name) ? line_of(text, "%s/%s/status", POWER, name) : NULL;
  json_key(out, first, "charging");
  bool charging = state != NULL && (strcmp(state, "Charging") == 0 || strcmp(state, "Full") == 0);
  fputs(state == NULL || strcmp(state, "Unknown") == 0 ? "null" : charging ? "true" : "false", out);
}

/* Whether cores may go above their nominal clock, as cpufreq or Intel's driver says. */
static void write_boost(FILE *out, bool *first) {
  char text[LINE];
  double allowed = number(line_of(text, "%s/cpufreq/boost", CPU));
  double forbidden = number(line_of(text, "%s/intel_pstate/no_turbo", CPU));
  json_key(out, first, "boost");
  if (isnan(allowed) && isnan(forbidden)) {
    fputs("null", out);
  } else {
    fputs((isnan(allowed) ? forbidden == 0 : allowed == 1) ? "true" : "false", out);
  }
}

void conditions_write_affinity(FILE *out) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) {
    fputs("null", out);
    return;
  }
  bool none = true;
  fputc('[', out);
  for (int core = 0; core < CPU_SETSIZE; core++) {
    if (!CPU_ISSET(core, &set)) continue;
    fprintf(out, none ? "%d" : ",%d", core);
    none = false;
  }
  fputc(']', out);
}

static void write_load(FILE *out, bool *first) {
  char text[LINE];
  double one, five, fifteen;
  const char *line = line_of(text, "/proc/loadavg");
  json_key(out, first, "load");
  if (line == NULL || sscanf(line, "%lf %lf %lf", &one, &five, &fifteen) != 3) {
    fputs("null", out);
  } else {
    fprintf(out, "[%g,%g,%g]", one, five, fifteen);
  }
}

void conditions_write(FILE *out, int core) {
  char text[LINE];
  struct utsname system;
  bool first = true, known = uname(&system) == 0;
  fputc('{', out);
  json_text_member(out, &first, "device", device(text));
  json_text_member(out, &first, "soc", soc(text));
  json_text_member(out, &first, "os", field(text, "/etc/os-release", "PRETTY_NAME", '='));
  json_text_member(out, &first, "kernel", known ? system.release : NULL);
  json_text_member(out, &first, "machine", known ? system.machine : NULL);
  json_text_member(out, &first, "cpu", cpu(text));
  json_number_member(out, &first, "cores", (double)sysconf(_SC_NPROCESSORS_ONLN));
  json_key(out, &first, "affinity");
  conditions_write_affinity(out);
  json_text_member(out, &first, "governor", line_of(text, "%s/cpu%d/cpufreq/scaling_governor", CPU, core));
  json_number_member(out, &first, "frequency_mhz", conditions_mhz(core));
  double most = number(line_of(text, "%s/cpu%d/cpufreq/scaling_max_freq", CPU, core)) / 1000;
  json_number_member(out, &first, "max_mhz", most);
  write_boost(out, &first);
  write_load(out, &first);
  write_temperatures(out, &first);
  json_number_member(out, &first, "battery_percent", conditions_battery());
  write_charging(out, &first);
  fputc('}', out);
}
