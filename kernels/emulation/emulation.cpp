// What runs the fibres, and the loop that takes commands from the process that tests
// (src/emulated.rs).
#include "emulation.h"

#include <dlfcn.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

// Switches between fibres, many millions of times: by hand, since swapcontext asks the system for
// the mask of signals each time.
#if defined(__x86_64__)
// Leaves what the callee has to keep on the stack in use, that stack's pointer in *from, and goes on
// where `to` was left.
extern "C" void mneme_switch_stack(void** from, void* to);
asm(R"(
.text
.globl mneme_switch_stack
.type mneme_switch_stack, @function
mneme_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mneme_switch_stack, .-mneme_switch_stack
)");
#endif

namespace emulation {

Place place;

namespace {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr std::size_t kGuardBytes = 4 << 10;   // below it, so that an overflow is a fault
constexpr unsigned kWarpLanes = 32;

[[noreturn]] void fatal(const std::string& what) {
  std::fprintf(stderr, "emulation: %s\n", what.c_str());
  std::fflush(stderr);
  _exit(3);
}

struct Copy {
  void* to;
  const void* from;
  std::size_t n, n_valid;
};

enum class Waits { kForNobody, kForWarp, kForBlock, kIsDone };

// Where a fibre was left.
#if defined(__x86_64__)
struct Context {
  void* pointer = nullptr;

  // Begins with `run`, which never returns, on a stack of its own.
  void begin(void* stack, std::size_t n_bytes, void (*run)()) {
    void** top = reinterpret_cast<void**>(static_cast<u8*>(stack) + n_bytes);
    *--top = nullptr;  // where `run` would return to; it leaves the stack as calls expect it
    *--top = reinterpret_cast<void*>(run);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    pointer = top;
  }
};
void switch_to(Context& from, Context& to) { mneme_switch_stack(&from.pointer, to.pointer); }
#else
struct Context {
  ucontext_t context;

  void begin(void* stack, std::size_t n_bytes, void (*run)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = n_bytes;
    context.uc_link = nullptr;
    makecontext(&context, run, 0);
  }
};
void switch_to(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif

struct Fibre {
  Context context;
  void* stack = nullptr;
  void* fake_stack = nullptr;
  Place place;
  unsigned warp;
  Waits waits;
  int line;
  u64 n_exchanges, n_barriers;
  std::vector<Copy> open_copies;
  std::deque<std::vector<Copy>> groups;
};

struct Warp {
  alignas(16) u8 slots[2][kWarpLanes * kSlotBytes];
  unsigned n_arrived;
  u64 n_exchanges;
  int line;
};

struct Entry {
  std::size_t params_bytes;
  unsigned threads;
  void (*run)(const void*);
};

struct Launch {
  dim3 grid, block;
  std::size_t shared_bytes;
  u32 order;
};

Context scheduler;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
std::vector<Fibre> fibres;
std::vector<Warp> warps;
Fibre* running = nullptr;
unsigned n_at_barrier, n_threads;
u64 n_barriers;
int barrier_line;
u8* dynamic = nullptr;
void (*kernel_run)(const void*);
const void* kernel_params;
std::string kernel_name;

std::map<std::string, Entry>& loading() {
  static std::map<std::string, Entry> kernels;  // of the module that is being loaded
  return kernels;
}
std::vector<std::pair<void*, std::size_t>>& shared_arrays() {
  static std::vector<std::pair<void*, std::size_t>> arrays;
  return arrays;
}

void to_scheduler(bool is_last) {
#if SANITIZED
  __sanitizer_start_switch_fiber(is_last ? nullptr : &running->fake_stack, scheduler_stack,
                                 scheduler_stack_bytes);
#endif
  switch_to(running->context, scheduler);
#if SANITIZED
  __sanitizer_finish_switch_fiber(running->fake_stack, nullptr, nullptr);
#endif
}

void wait(Waits waits, int line) {
  running->waits = waits;
  running->line = line;
  to_scheduler(false);
  place = running->place;
}

void begin() {
#if SANITIZED
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  kernel_run(kernel_params);
  running->waits = Waits::kIsDone;
  to_scheduler(true);
}

void resume(Fibre& fibre) {
  running = &fibre;
  place = fibre.place;
#if SANITIZED
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fibre.stack, kStackBytes);
#endif
  switch_to(scheduler, fibre.context);
#if SANITIZED
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

bool can_run(const Fibre& fibre) {
  switch (fibre.waits) {
    case Waits::kForNobody:
      return true;
    case Waits::kForWarp:
      return warps[fibre.warp].n_exchanges >= fibre.n_exchanges;
    case Waits::kForBlock:
      return n_barriers >= fibre.n_barriers;
    case Waits::kIsDone:
      return false;
  }
  return false;
}

std::string describe(const Fibre& fibre) {
  const auto& t = fibre.place.thread;
  const std::string who = "thread " + std::to_string(t.x) + "," + std::to_string(t.y);
  switch (fibre.waits) {
    case Waits::kForWarp:
      return who + " waits for its warp at line " + std::to_string(fibre.line);
    case Waits::kForBlock:
      return who + " waits for its block at line " + std::to_string(fibre.line);
    default:
      return who + " has ended";
  }
}

[[noreturn]] void stuck() {
  std::string what = "kernel " + kernel_name + " is stuck: threads wait for some that do not come";
  std::string last;
  for (const Fibre& fibre : fibres) {
    const std::string said = describe(fibre);
    const std::string state = said.substr(said.find(' ', 7));
    if (state != last) what += "\n  " + said + ", and those after it";
    last = state;
  }
  fatal(what);
}

void prepare(Fibre& fibre, unsigned linear, const Launch& launch, dim3 block) {
  if (fibre.stack == nullptr) {
    void* at = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED || mprotect(at, kGuardBytes, PROT_NONE) != 0) {
      fatal("no memory for the stack of a thread");
    }
    fibre.stack = static_cast<u8*>(at) + kGuardBytes;
  }
#if SANITIZED
  __asan_unpoison_memory_region(fibre.stack, kStackBytes);
#endif
  const auto& dim = launch.block;
  const dim3 thread{linear % dim.x, linear / dim.x % dim.y, linear / dim.x / dim.y};
  fibre.place = {thread, block, launch.block, launch.grid};
  fibre.warp = linear / kWarpLanes;
  fibre.waits = Waits::kForNobody;
  fibre.n_exchanges = fibre.n_barriers = 0;
  fibre.open_copies.clear();
  fibre.groups.clear();
  fibre.context.begin(fibre.stack, kStackBytes, begin);
}

void run_block(const Launch& launch, dim3 block, std::mt19937& random) {
  for (auto& [at, bytes] : shared_arrays()) std::memset(at, 0xff, bytes);
  // Exactly as long as was asked for, so that the address sanitizer sees who goes beyond it.
  void* at = nullptr;
  if (posix_memalign(&at, 128, std::max<std::size_t>(launch.shared_bytes, 1)) != 0)
    fatal("no memory");
  std::memset(at, 0xff, launch.shared_bytes);
  dynamic = static_cast<u8*>(at);
  for (Warp& warp : warps) warp.n_arrived = 0, warp.n_exchanges = 0;
  n_at_barrier = 0;
  n_barriers = 0;
  for (unsigned i = 0; i < n_threads; ++i) prepare(fibres[i], i, launch, block);
  std::vector<unsigned> turns(n_threads);
  for (unsigned i = 0; i < n_threads; ++i) turns[i] = launch.order == 1 ? n_threads - 1 - i : i;
  for (unsigned n_done = 0; n_done < n_threads;) {
    if (launch.order > 1) std::shuffle(turns.begin(), turns.end(), random);
    bool has_run = false;
    for (unsigned turn : turns) {
      Fibre& fibre = fibres[turn];
      if (!can_run(fibre)) continue;
      fibre.waits = Waits::kForNobody;
      resume(fibre);
      has_run = true;
      n_done += fibre.waits == Waits::kIsDone;
    }
    if (!has_run) stuck();
  }
  std::free(at);
}

void run(const std::string& name, const Entry& entry, const Launch& launch, const void* params) {
  n_threads = launch.block.x * launch.block.y * launch.block.z;
  if (n_threads == 0 || n_threads % kWarpLanes != 0) fatal(name + ": blocks are of whole warps");
  if (n_threads > entry.threads) fatal(name + ": a block has more threads than its bounds say");
  if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0) {
    fatal(name + ": a grid without blocks");
  }
  if (launch.grid.y > 65535 || launch.grid.z > 65535) fatal(name + ": a grid of too many blocks");
  if (launch.shared_bytes > (227u << 10)) fatal(name + ": more shared memory than a device has");
  fibres.resize(std::max<std::size_t>(fibres.size(), n_threads));
  warps.resize(n_threads / kWarpLanes);
  kernel_run = entry.run;
  kernel_params = params;
  kernel_name = name;
  std::mt19937 random(launch.order);
  const u64 n_blocks = u64(launch.grid.x) * launch.grid.y * launch.grid.z;
  for (u64 i = 0; i < n_blocks; ++i) {
    const u64 at = launch.order == 0 ? i : n_blocks - 1 - i;
    const auto& grid = launch.grid;
    const dim3 block{unsigned(at % grid.x), unsigned(at / grid.x % grid.y),
                     unsigned(at / grid.x / grid.y)};
    run_block(launch, block, random);
  }
}

}  // namespace

void sync_block(int line) {
  if (n_at_barrier == 0) barrier_line = line;
  if (barrier_line != line) {
    fatal(kernel_name + ": threads of a block are at different barriers, lines " +
          std::to_string(barrier_line) + " and " + std::to_string(line));
  }
  ++running->n_barriers;
  if (++n_at_barrier == n_threads) {
    n_at_barrier = 0;
    ++n_barriers;
    return;
  }
  wait(Waits::kForBlock, line);
}

const u8* exchange(const void* bytes, std::size_t n, int line) {
  Warp& warp = warps[running->warp];
  u8* slots = warp.slots[running->n_exchanges % 2];
  if (n > kSlotBytes) fatal("an exchange of more bytes than a slot has");
  std::memcpy(slots + lane() * kSlotBytes, bytes, n);
  if (warp.n_arrived == 0) warp.line = line;
  if (warp.line != line) {
    fatal(kernel_name + ": lanes of a warp are at different exchanges, lines " +
          std::to_string(warp.line) + " and " + std::to_string(line));
  }
  ++running->n_exchanges;
  if (++warp.n_arrived == kWarpLanes) {
    warp.n_arrived = 0;
    ++warp.n_exchanges;
  } else {
    wait(Waits::kForWarp, line);
  }
  return slots;
}

u8* dynamic_shared() { return dynamic; }

void copy_async(void* to, const void* from, std::size_t n, std::size_t n_valid) {
  const auto is_aligned = [n](const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) % n == 0;
  };
  if (!is_aligned(to) || !is_aligned(from))
    fatal(kernel_name + ": an asynchronous copy is not aligned");
  running->open_copies.push_back({to, from, n, n_valid});
}

void copy_async_commit() {
  running->groups.push_back(std::move(running->open_copies));
  running->open_copies.clear();
}

void copy_async_wait(int n_pending) {
  while (running->groups.size() > std::size_t(n_pending)) {
    for (const Copy& copy : running->groups.front()) {
      std::memcpy(copy.to, copy.from, copy.n_valid);
      std::memset(static_cast<u8*>(copy.to) + copy.n_valid, 0, copy.n - copy.n_valid);
    }
    running->groups.pop_front();
  }
}

Kernel::Kernel(const char* name, std::size_t params_bytes, unsigned threads,
               void (*run)(const void*)) {
  loading()[name] = {params_bytes, threads, run};
}

Shared::Shared(void* at, std::size_t bytes) {
  std::memset(at, 0xff, bytes);
  shared_arrays().emplace_back(at, bytes);
}

}  // namespace emulation

namespace {

using emulation::fatal;

void read_all(void* to, std::size_t n) {
  if (n > 0 && std::fread(to, 1, n, stdin) != n) std::exit(0);  // who gave commands is gone
}
template <typename T>
T get() {
  T value;
  read_all(&value, sizeof(T));
  return value;
}
std::string get_string() {
  std::string text(get<u64>(), '\0');
  read_all(text.data(), text.size());
  return text;
}
void put(const void* bytes, std::size_t n) {
  std::fwrite(bytes, 1, n, stdout);
  std::fflush(stdout);
}
void put_number(u64 number) { put(&number, sizeof(number)); }

std::vector<std::map<std::string, emulation::Entry>> modules;
std::map<std::string, u64> loaded;  // by path: what is loaded already registers nothing again

void load(const std::string& path) {
  if (const auto found = loaded.find(path); found != loaded.end()) return put_number(found->second);
  emulation::loading().clear();
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) fatal(dlerror());
  loaded[path] = modules.size();
  modules.push_back(emulation::loading());
  put_number(loaded[path]);
}

u64 allocate(u64 n) {
  void* at = nullptr;
  if (posix_memalign(&at, 256, std::max<u64>(n, 1)) != 0) fatal("no memory for a buffer");
  std::memset(at, 0xff, n);
  return reinterpret_cast<u64>(at);
}

void launch() {
  const u64 module = get<u64>();
  const std::string name = get_string();
  emulation::Launch launch;
  for (dim3* dim : {&launch.grid, &launch.block}) *dim = {get<u32>(), get<u32>(), get<u32>()};
  launch.shared_bytes = get<u64>();
  launch.order = u32(get<u64>());
  const std::string params = get_string();
  const auto found = modules.at(module).find(name);
  if (found == modules[module].end()) fatal("no kernel " + name + " in its module");
  if (found->second.params_bytes != params.size()) {
    fatal(name + ": its parameters have " + std::to_string(found->second.params_bytes) +
          " bytes, given are " + std::to_string(params.size()));
  }
  void* aligned = reinterpret_cast<void*>(allocate(params.size()));
  std::memcpy(aligned, params.data(), params.size());
  emulation::run(name, found->second, launch, aligned);
  std::free(aligned);
  put_number(0);
}

void* pointer(u64 address) { return reinterpret_cast<void*>(address); }

}  // namespace

int main() {
  for (;;) {
    switch (get<u8>()) {
      case 'M':
        load(get_string());
        break;
      case 'A':
        put_number(allocate(get<u64>()));
        break;
      case 'F':
        std::free(pointer(get<u64>()));
        break;
      case 'W': {
        void* to = pointer(get<u64>());
        const u64 n = get<u64>();
        read_all(to, n);
        break;
      }
      case 'R': {
        const void* from = pointer(get<u64>());
        put(from, get<u64>());
        break;
      }
      case 'C': {
        const void* from = pointer(get<u64>());
        void* to = pointer(get<u64>());
        std::memcpy(to, from, get<u64>());
        break;
      }
      case 'L':
        launch();
        break;
      default:
        fatal("an unknown command");
    }
  }
}
