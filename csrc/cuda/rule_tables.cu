// The tables of a rule, from its steps and from what is annotated: one launch. A block per sample; a warp per label
// goes through all steps, which are the same for every thread, with its sets of classes in shared memory.
#include "launch.cuh"

namespace labeldrop::cuda {
namespace {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int64_t kMostWarps = 32;

__device__ __forceinline__ uint32_t everything(const RuleTablesArguments& a, int word) {
  const int64_t left = a.classes - word * 32;
  return left >= 32 ? ~0u : (1u << left) - 1;
}

__device__ __forceinline__ bool is_annotated(const RuleTablesArguments& a, int64_t sample, int64_t label) {
  return a.annotated == nullptr || a.annotated[sample * a.labels + label] != 0;
}

// A warp's view of the block's shared memory: sets of W words.
struct Workspace {
  const uint32_t* covered;  // [W]
  uint32_t* in_some_row;    // [steps, W]: what the steps of this kind have gathered
  uint32_t* sets;           // [steps, W]: this warp's
  int words, lane;
};

// All steps for a label. What is in some row is gathered, or, when all labels have been gone through, read.
__device__ __forceinline__ void run_steps(const RuleTablesArguments& a, const Workspace& s, int64_t sample,
                                          int64_t label, bool gathered) {
  const bool own = label != 0 && is_annotated(a, sample, label);
  for (int step = 0; step < a.count; ++step) {
    const auto code = static_cast<SetCode>(a.steps[3 * step]);
    const uint32_t* first = s.sets + a.steps[3 * step + 1] * s.words;
    const uint32_t* second = s.sets + a.steps[3 * step + 2] * s.words;
    int size = 0;
    if (code == SetCode::single || code == SetCode::occupied) {
      for (int w = s.lane; w < s.words; w += 32) size += __popc(first[w]);
      for (int offset = 16; offset > 0; offset /= 2) size += __shfl_xor_sync(kWholeWarp, size, offset);
    }
    __syncwarp();  // foreground reads another lane's word
    for (int w = s.lane; w < s.words; w += 32) {
      uint32_t set = 0;
      switch (code) {
        case SetCode::background: set = w == 0; break;
        case SetCode::everything: set = everything(a, w); break;
        case SetCode::covered: set = s.covered[w]; break;
        case SetCode::rows: set = own ? a.member[label * s.words + w] : first[w]; break;
        case SetCode::single: set = size == 1 ? everything(a, w) : 0; break;
        case SetCode::occupied: set = size != 0 ? everything(a, w) : 0; break;
        case SetCode::in_some_row:
          if (!gathered) atomicOr(s.in_some_row + step * s.words + w, first[w]);
          if (gathered) set = s.in_some_row[step * s.words + w];
          break;
        case SetCode::foreground: set = first[w] >> 1 | (w + 1 < s.words ? first[w + 1] << 31 : 0); break;
        case SetCode::both: set = first[w] & second[w]; break;
        case SetCode::either: set = first[w] | second[w]; break;
        case SetCode::others: set = ~first[w] & everything(a, w); break;
      }
      s.sets[step * s.words + w] = set;
    }
  }
  __syncwarp();
}

// A set as words, or as a byte for each of its classes.
__device__ __forceinline__ void store(const Workspace& s, int step, int words, uint32_t* to) {
  for (int w = s.lane; w < words; w += 32) to[w] = s.sets[step * s.words + w];
}
__device__ __forceinline__ void store(const Workspace& s, int step, int64_t classes, uint8_t* to) {
  for (int k = s.lane; k < classes; k += 32) to[k] = s.sets[step * s.words + k / 32] >> k % 32 & 1;
}

__global__ void __launch_bounds__(32 * kMostWarps) rule_tables_kernel(const RuleTablesArguments a, const int words) {
  LABELDROP_DYNAMIC_SHARED(shared);
  uint32_t* covered = reinterpret_cast<uint32_t*>(shared);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int all_sets = static_cast<int>(a.count) * words;
  const Workspace s{covered, covered + words, covered + words + all_sets * (1 + warp), words,
                    static_cast<int>(threadIdx.x % 32)};
  const int64_t classes = a.classes - a.dropped;  // of the results
  const int to_words = static_cast<int>((classes + 31) / 32);
  if (a.zero != nullptr && blockIdx.x == 0 && threadIdx.x == 0) *a.zero = 0;
  for (int64_t sample = blockIdx.x; sample < a.samples; sample += gridDim.x) {
    for (int i = threadIdx.x; i < words + all_sets; i += blockDim.x) covered[i] = i == 0;  // background is covered
    __syncthreads();
    for (int64_t label = warp; label < a.labels; label += warps) {
      if (!a.exhaustive[label] || !is_annotated(a, sample, label)) continue;
      for (int w = s.lane; w < words; w += 32) atomicOr(covered + w, a.member[label * words + w]);
    }
    __syncthreads();
    for (int64_t label = warp; label < a.labels; label += warps) {
      run_steps(a, s, sample, label, false);
      const int64_t row = sample * a.labels + label;
      for (int t = 0; t < a.table_count; ++t) {
        store(s, a.tables[t], to_words, a.words + (row * a.table_count + t) * to_words);
      }
      if (a.positive != nullptr) store(s, a.positive_step, classes, a.positive + row * classes);
      if (a.label_weight != nullptr && s.lane == 0) {
        const int64_t from = is_annotated(a, sample, label) ? label : 0;
        if (a.weights_are_double) {
          static_cast<double*>(a.label_weight)[row] = a.weight[from];
        } else {
          static_cast<float*>(a.label_weight)[row] = static_cast<float>(a.weight[from]);
        }
      }
      __syncwarp();  // the next label's sets take the same place
    }
    __syncthreads();
    if (warp == 0 && a.merged != nullptr) {
      run_steps(a, s, sample, 0, true);
      store(s, a.merged_step, to_words, a.merged + sample * to_words);
      store(s, a.included_step, classes, a.included + sample * classes);
    }
    __syncthreads();
  }
}

}  // namespace

void rule_tables(const RuleTablesArguments& a, Stream stream) {
  if (a.samples == 0) return;
  const int64_t words = (a.classes + 31) / 32, of_warp = a.count * words * 4, of_block = words * 4 + of_warp;
  const int64_t most = (kDefaultShared - of_block) / of_warp;
  const int64_t warps = std::clamp<int64_t>(std::min(a.labels, most), 1, kMostWarps);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(a.samples, 1 << 20));
  launch("rule_tables", rule_tables_kernel, blocks, static_cast<unsigned>(32 * warps),
         {of_block + warps * of_warp, a.classes}, static_cast<cudaStream_t>(stream), a, static_cast<int>(words));
}

}  // namespace labeldrop::cuda
