/* A driver's library with GPUs of constant power, for tests of whole programs: cc -shared -fPIC, as libnvidia-ml.so.1.

NVML_GPUS, NVML_WATTS and NVML_TICK_S script it; in the folder NVML_EVENTS, a file `foreign` makes process 1 compute there, and a
file `reset` starts the count anew. Structures are as in nvidia-ml-py. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, POWER_INSTANT = 186 };

typedef struct { unsigned id, scope; long long at, late; int type, result; unsigned long long value; } field;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu, compute; } process;

static double number(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text ? atof(text) : otherwise;
}

static int happened(const char *event) {
    char path[4096];
    const char *folder = getenv("NVML_EVENTS");
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, event);
    return access(path, F_OK) == 0;
}

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("NVML_GPUS", 1); return SUCCESS; }
int nvmlDeviceGetName(void *gpu, char *name, unsigned size) { snprintf(name, size, "Heater"); return SUCCESS; }
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *celsius) { *celsius = 61; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    *gpu = (void *)(size_t)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *gpu, char *uuid, unsigned size) {
    snprintf(uuid, size, "GPU-%zu-of-the-test", (size_t)gpu - 1);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *millijoules) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double tick_s = number("NVML_TICK_S", 0.02);
    long long ticks = (now.tv_sec + now.tv_nsec / 1e9 + (happened("reset") ? 0 : 1000)) / tick_s;
    *millijoules = 1000 * number("NVML_WATTS", 100) * ticks * tick_s;
    return SUCCESS;
}

int nvmlDeviceGetFieldValues(void *gpu, int count, field *values) {
    for (int i = 0; i < count; i++) {
        values[i].result = values[i].id == POWER_INSTANT ? SUCCESS : NOT_SUPPORTED;
        values[i].value = 1000 * number("NVML_WATTS", 100);
    }
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, process *found) {
    unsigned room = *count;
    *count = happened("foreign");
    if (*count == 0) return SUCCESS;
    if (room < *count || !found) return INSUFFICIENT_SIZE;
    memset(found, 0, sizeof *found);
    found->pid = 1;
    return SUCCESS;
}
