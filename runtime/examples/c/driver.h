/* What the examples need of the CUDA driver, which an engine has anyway: opened when asked for, so that they also run without one. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "kvfuse.h"

#define OK(call) do { int rc_ = (call); if (rc_) return printf("%s: %s: %s\n", #call, kvf_status_str(rc_), kvf_last_error()), rc_; } while (0)
#define CU(call) do { int rc_ = (call); if (rc_) return printf("%s: CUDA error %d\n", #call, rc_), -rc_; } while (0)

static struct {
    int (*init)(unsigned), (*retain)(void **, int), (*set_current)(void *), (*stream_create)(void **, unsigned), (*wait)(void *);
    int (*alloc)(void **, size_t), (*free)(void *), (*to_device)(void *, const void *, size_t), (*to_host)(void *, const void *, size_t);
    int (*capture)(void *, int), (*captured)(void *, void **), (*instantiate)(void **, void *, unsigned long long), (*launch)(void *, void *);
} cu;

/* Opens device 0: its primary context becomes current, as engines on the runtime API have it. */
static int open_driver(void **stream) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL), *context;
    if (!driver) return KVF_ERR_NO_GPU;
#define LOAD(name, symbol) if (!(*(void **)(&cu.name) = dlsym(driver, symbol))) return KVF_ERR_NO_GPU
    LOAD(init, "cuInit"); LOAD(retain, "cuDevicePrimaryCtxRetain"); LOAD(set_current, "cuCtxSetCurrent");
    LOAD(stream_create, "cuStreamCreate"); LOAD(wait, "cuStreamSynchronize"); LOAD(alloc, "cuMemAlloc_v2"); LOAD(free, "cuMemFree_v2");
    LOAD(to_device, "cuMemcpyHtoD_v2"); LOAD(to_host, "cuMemcpyDtoH_v2"); LOAD(capture, "cuStreamBeginCapture_v2");
    LOAD(captured, "cuStreamEndCapture"); LOAD(instantiate, "cuGraphInstantiateWithFlags"); LOAD(launch, "cuGraphLaunch");
    if (cu.init(0) || cu.retain(&context, 0)) return KVF_ERR_NO_GPU;
    CU(cu.set_current(context));
    CU(cu.stream_create(stream, 1));
    return 0;
}

/* Memory of the device: a copy of `from`, or unset. */
static int on_device(void **at, const void *from, size_t bytes) {
    CU(cu.alloc(at, bytes + 16));
    if (from) CU(cu.to_device(*at, from, bytes));
    return 0;
}

static float random_float(void) {
    static uint32_t state = 1;
    return (float)((state = state * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1.0f;
}
