// A CUDA device that does nothing, for tools/cuda-kernels. It is loaded as libcuda.so.1, and its
// runtime functions come before those of libcudart. With it, ONNX Runtime's CUDA provider lists its
// kernels and places nodes.
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <memory>

#define SUCCEED(name) int name(...) { return 0; }
#define CREATE(name) int name(void** handle, ...) { *handle = std::malloc(8); return 0; }

extern "C" {
SUCCEED(cuGetErrorString) SUCCEED(cuModuleGetFunction) SUCCEED(cuModuleLoadData)
SUCCEED(cuModuleUnload) SUCCEED(cuTensorMapEncodeIm2col) SUCCEED(cuTensorMapEncodeTiled)
SUCCEED(cudaSetDevice) SUCCEED(cudaGetLastError) SUCCEED(cudaDeviceSynchronize)
SUCCEED(cudaStreamSynchronize) SUCCEED(cudaStreamDestroy) SUCCEED(cudaStreamWaitEvent)
SUCCEED(cudaEventRecord) SUCCEED(cudaEventRecordWithFlags) SUCCEED(cudaEventSynchronize)
SUCCEED(cudaEventDestroy) SUCCEED(cudaFuncGetAttributes) SUCCEED(cublasSetStream_v2)
SUCCEED(cublasSetMathMode) SUCCEED(cublasDestroy_v2) SUCCEED(cublasLtDestroy)
CREATE(cudaStreamCreate) CREATE(cudaStreamCreateWithFlags) CREATE(cudaEventCreate)
CREATE(cudaEventCreateWithFlags) CREATE(cublasCreate_v2) CREATE(cublasLtCreate)
int cudaGetDevice(int* device) { *device = 0; return 0; }
int cudaGetDeviceCount(int* count) { *count = 1; return 0; }
int cudaDriverGetVersion(int* version) { *version = 13000; return 0; }
int cudaDeviceGetAttribute(int* value, int, int) { *value = 9; return 0; }
int cudaGetDeviceProperties(void* properties, int) {
    std::memset(properties, 0, 1008);
    return 0;
}
int cudaMemGetInfo(size_t* available, size_t* total) {
    *available = *total = size_t{64} << 30;
    return 0;
}
int cudaMalloc(void** pointer, size_t bytes) {
    *pointer = std::calloc(1, bytes + 1);
    return 0;
}
int cudaMallocHost(void** pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }
int cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return cudaMalloc(pointer, bytes); }
int cudaFree(void* pointer) { std::free(pointer); return 0; }
int cudaFreeHost(void* pointer) { return cudaFree(pointer); }
int cudaMemcpy(void* to, const void* from, size_t bytes, int) {
    std::memcpy(to, from, bytes);
    return 0;
}
int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void*) {
    return cudaMemcpy(to, from, bytes, kind);
}
int cudaMemset(void* to, int value, size_t bytes) {
    std::memset(to, value, bytes);
    return 0;
}
int cudaMemsetAsync(void* to, int value, size_t bytes, void*) {
    return cudaMemset(to, value, bytes);
}
int cudaStreamIsCapturing(void*, int* status) { *status = 0; return 0; }
}

// The same file stands in for the TensorRT provider, which needs libraries of its own: listing
// kernels asks every provider of the build, so this provider passes on the CUDA provider. The
// functions are in the order of ONNX Runtime's `Provider`.
struct Provider {
    virtual std::shared_ptr<void> create(const void* options) { return {}; }
    virtual std::shared_ptr<void> create(int device);
    virtual void* info() { return nullptr; }
    virtual void get_options() {}
    virtual void set_options() {}
    virtual void get_domain() {}
    virtual void get_domains() {}
    virtual void initialize() {}
    virtual void shutdown() {}
};

std::shared_ptr<void> Provider::create(int) {
    static char options[4096];
    void* library = dlopen("libonnxruntime_providers_cuda.so", RTLD_NOW);
    return reinterpret_cast<Provider* (*)()>(dlsym(library, "GetProvider"))()->create(options);
}

extern "C" Provider* GetProvider() { static Provider provider; return &provider; }
