//! A whole model on a GPU, in the host emulation of one: it says what the processor says, keeps
//! what the processor keeps, and tells what it cannot do.

mod draws;

use std::path::Path;

use mneme::backend::any::DeviceChoice;
use mneme::backend::cpu::CpuBackend;
use mneme::backend::cuda::{CudaBackend, GpuMemory, SlotCounts};
use mneme::backend::{Backend, BackendError, KvType, Precision};
use mneme::engine::{
    ContextError, Contexts, Engine, EngineError, EngineOptions, Session, no_progress,
};
use mneme::ids::{LayerIdx, TokenId};
use mneme::memory::store::{Store, StoreOptions};
use mneme::memory::{
    AttentionMode, LookupPolicy, Memory, MemoryConfig, MemoryError, Phase, Positions, Sets, Stores,
};
use mneme::model::{Architecture, Part};
use mneme::tensor::DType;

use crate::fixtures::{
    Runner, ScratchFolder, TinyModel, gguf_model, greedy, largest_difference, letters,
    random_tokens, typical_difference,
};

/// An emulated GPU with room for so many bytes of units, and as many of what stands for them.
fn gpu(unit_bytes: Option<usize>) -> CudaBackend {
    gpu_with(GpuMemory { unit_bytes, index_bytes: unit_bytes, total_bytes: None })
}

fn gpu_with(memory: GpuMemory) -> CudaBackend {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    CudaBackend::emulated(&folder, (memory, 1)).unwrap()
}

fn on_cpu(tiny: &TinyModel) -> Runner<CpuBackend> {
    Runner::new(&gguf_model(tiny), 1, Precision::Int16)
}

fn on_gpu(tiny: &TinyModel, unit_bytes: Option<usize>) -> Runner<CudaBackend> {
    Runner::on(gpu(unit_bytes), &gguf_model(tiny))
}

/// An engine on an emulated GPU.
pub fn emulated(model: &Path) -> Engine {
    on_device(model, DeviceChoice::Emulated)
}

fn on_device(model: &Path, device: DeviceChoice) -> Engine {
    let kernels = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation"));
    let options = EngineOptions { n_threads: 1, device, kernels, ..EngineOptions::default() };
    Engine::load(model, &options).unwrap()
}

/// Small, and as kernels have it: pages of 64.
pub fn config() -> MemoryConfig {
    MemoryConfig {
        sink_tokens: 5,
        window_tokens: 64,
        unit_tokens: 64,
        segment_tokens: 8,
        chunk_tokens: 64,
        ask_chunk_tokens: 4,
        answer_chunk_tokens: 1,
        retrieved_units: 2,
        candidates_per_unit: 1,
        neighbour_units: 0,
        pin_neighbour_units: 0,
        read_query_tokens: 16,
        ..MemoryConfig::default()
    }
}

fn tiny(dtype: DType) -> TinyModel {
    TinyModel { trained_tokens: 4096, dtype, seed: 5, ..TinyModel::default() }
}

/// A text, a question and an answer.
struct Task {
    text: Vec<TokenId>,
    question: Vec<TokenId>,
    answer: Vec<TokenId>,
}

impl Task {
    /// Whose text is five units and the window.
    fn of(tiny: &TinyModel) -> Self {
        let mut text = random_tokens(5 + 6 * 64 + 50, tiny.vocab_size, 3);
        let mut question = text.split_off(text.len() - 8);
        let answer = question.split_off(6);
        Self { text, question, answer }
    }

    fn read<B: Backend>(&self, runner: &mut Runner<B>, memory: &mut Memory<B>) {
        let mut last = vec![0.0; runner.transformer.config().vocab_size];
        for chunk in self.text.chunks(memory.config().chunk_tokens) {
            memory.begin_chunk(chunk.len(), Phase::Reading).unwrap();
            runner.step(chunk, memory, &mut last);
            memory.end_chunk().unwrap();
        }
    }

    /// The logits of question and answer.
    fn ask<B: Backend>(&self, runner: &mut Runner<B>, memory: &mut Memory<B>) -> Vec<f32> {
        let mut logits = runner.read(memory, &self.question, Phase::Asking);
        logits.extend(runner.read(memory, &self.answer, Phase::Answering));
        logits
    }
}

/// Both devices say the same, and have read the same units for it.
#[track_caller]
fn check(tiny: &TinyModel, config: &MemoryConfig) {
    let task = Task::of(tiny);
    let (mut cpu, mut cuda) = (on_cpu(tiny), on_gpu(tiny, None));
    let (mut here, mut there) = (cpu.memory(config), cuda.memory(config));
    task.read(&mut cpu, &mut here);
    task.read(&mut cuda, &mut there);
    let expected = task.ask(&mut cpu, &mut here);
    let logits = task.ask(&mut cuda, &mut there);
    // Queries, keys and values are halves there and integers of 16 bits here. Logits are around 1.
    let typical = typical_difference(&logits, &expected);
    assert!(typical < 0.01, "{tiny:?} {config:?}: {typical:e}");
    let largest = largest_difference(&logits, &expected);
    assert!(largest < 0.2, "{tiny:?} {config:?}: {largest:e}");
    assert!(there.n_units() == here.n_units() && here.n_units() == 5);
    for layer in 0..tiny.n_layers {
        for kv_head in 0..tiny.n_kv_heads {
            let units = here.retrieved(LayerIdx(layer), kv_head);
            assert!(!units.is_empty());
            assert_eq!(there.retrieved(LayerIdx(layer), kv_head), units);
        }
    }
    let (evidence, expected) = (there.take_evidence(), here.take_evidence());
    assert!(evidence.len() == expected.len() && !expected.is_empty());
    for expected in expected {
        let of_unit = evidence.iter().find(|of| of.unit == expected.unit).unwrap();
        let difference = (of_unit.mass - expected.mass).abs();
        assert!(difference <= 0.03 * expected.mass.max(0.01), "{of_unit:?} {expected:?}");
    }
}

#[test]
fn quantised_weights_say_what_they_say_on_the_processor() {
    // Of seed 5 two units' votes nearly tie, and rounding decides.
    check(&TinyModel { seed: 6, ..tiny(DType::Q4_1) }, &config());
}

#[test]
fn norms_of_heads_biases_and_sets_of_kv_heads_are_the_processors() {
    let qwen3 = TinyModel { architecture: Architecture::Qwen3, ..tiny(DType::Q8_0) };
    check(&qwen3, &MemoryConfig { sets: Sets::KvHead, ..config() });
    let qwen2 = TinyModel { architecture: Architecture::Qwen2, tied: false, ..tiny(DType::F16) };
    check(&qwen2, &MemoryConfig { kv_type: KvType::F16, ..config() });
}

#[test]
fn units_of_nibbles_are_attended_to_beside_a_window_of_bytes() {
    check(&tiny(DType::BF16), &MemoryConfig { kv_type: KvType::Int4, ..config() });
}

#[test]
fn units_come_and_go_where_few_fit_and_too_few_are_told() {
    let tiny = tiny(DType::Q8_0);
    let task = Task::of(&tiny);
    let slot_bytes = 5 * 1024; // of a layer of a unit
    let mut roomy = on_gpu(&tiny, None);
    let mut memory = roomy.memory(&config());
    task.read(&mut roomy, &mut memory);
    let expected = task.ask(&mut roomy, &mut memory);
    let counts = roomy.transformer.backend().unit_counts();
    assert!(counts.misses <= 10 && counts.hits > 10, "five units of two layers: {counts:?}");
    let blocks = roomy.transformer.backend().block_counts();
    assert!(blocks.hits > 0 && blocks.misses >= 2, "a block of two layers: {blocks:?}");
    let mut fork = memory.fork(config(), tiny.trained_tokens).unwrap();
    task.ask(&mut roomy, &mut fork);
    let after = roomy.transformer.backend().block_counts();
    assert_eq!(after.misses, blocks.misses, "forks have the same blocks");

    let mut tight = on_gpu(&tiny, Some(2 * slot_bytes));
    let mut memory = tight.memory(&config());
    task.read(&mut tight, &mut memory);
    assert_eq!(task.ask(&mut tight, &mut memory), expected, "to the bit");
    let counts = tight.transformer.backend().unit_counts();
    assert!(counts.misses > 20, "{counts:?}");

    // Without room for the index the host looks up, and comes to the same.
    let mut host = on_gpu(&tiny, Some(slot_bytes + slot_bytes / 2));
    let narrow = MemoryConfig { retrieved_units: 1, ..config() };
    let mut memory = host.memory(&narrow);
    task.read(&mut host, &mut memory);
    let by_host = task.ask(&mut host, &mut memory);
    assert_eq!(host.transformer.backend().block_counts(), SlotCounts::default());
    let mut memory = roomy.memory(&narrow);
    task.read(&mut roomy, &mut memory);
    assert_eq!(task.ask(&mut roomy, &mut memory), by_host);

    // Told to who asks, so that nobody else's device stops.
    let too_small = on_gpu(&tiny, Some(slot_bytes));
    let told = too_small.try_memory(&config()).map(|_| ()).unwrap_err().to_string();
    assert!(
        told.contains("room for 1 of a layer, and a step reads 2")
            && told.contains("gpu-unit-bytes"),
        "{told}"
    );
    too_small.transformer.backend().check().unwrap();
    assert!(too_small.memory(&narrow).fork(config(), tiny.trained_tokens).is_err());
}

/// A session may be on any thread, and all have one device.
#[test]
fn sessions_on_several_threads_do_not_disturb_one_another() {
    let tiny = tiny(DType::Q8_0);
    let backend = std::sync::Arc::new(gpu(None));
    let model = gguf_model(&tiny);
    let answers = |seed: u64| {
        let mut runner = Runner::sharing(backend.clone(), &model);
        let mut memory = runner.memory(&config());
        let task = Task { text: random_tokens(400, tiny.vocab_size, seed), ..Task::of(&tiny) };
        task.read(&mut runner, &mut memory);
        task.ask(&mut runner, &mut memory)
    };
    let alone = [answers(20), answers(21)];
    let together = std::thread::scope(|scope| {
        [20, 21].map(|seed| scope.spawn(move || answers(seed))).map(|thread| thread.join().unwrap())
    });
    assert_eq!(together, alone);
}

#[test]
fn a_memory_is_forked_suspended_and_rewound_as_on_the_processor() {
    let tiny = tiny(DType::Q8_0);
    let task = Task::of(&tiny);
    let mut cuda = on_gpu(&tiny, None);
    let mut memory = cuda.memory(&config());
    task.read(&mut cuda, &mut memory);
    let mut fork = memory.fork(config(), tiny.trained_tokens).unwrap();
    let expected = task.ask(&mut cuda, &mut fork);

    let near_bytes = memory.near_bytes();
    memory.set_aside();
    assert!(near_bytes > 0 && memory.near_bytes() == 0, "the GPU's memory is given back");
    let mut fork = memory.fork(config(), tiny.trained_tokens).unwrap();
    assert_eq!(fork.near_bytes(), 0);
    assert_eq!(task.ask(&mut cuda, &mut fork), expected, "brought back by what needs it");
    assert!(fork.near_bytes() > 0);

    let suspended = memory.suspend().unwrap();
    let Stores { units, blocks } = memory.share_stores().unwrap();
    let stores = Stores { units, blocks };
    let mut resumed = cuda.resume(&config(), stores, &suspended.state).unwrap();
    assert_eq!(task.ask(&mut cuda, &mut resumed), expected, "to the bit");

    // What was read after the text is forgotten, and the text's end with it.
    let n_text = task.text.len();
    task.ask(&mut cuda, &mut memory);
    memory.set_aside();
    memory.rewind(n_text - 70).unwrap();
    let rest = Task { text: task.text[n_text - 70..].to_vec(), ..Task::of(&tiny) };
    rest.read(&mut cuda, &mut memory);
    let mut never = cuda.memory(&config());
    let begun = Task { text: task.text[..n_text - 70].to_vec(), ..Task::of(&tiny) };
    begun.read(&mut cuda, &mut never);
    rest.read(&mut cuda, &mut never);
    let (again, expected) = (task.ask(&mut cuda, &mut memory), task.ask(&mut cuda, &mut never));
    assert_eq!(again, expected, "as if it had never been read");
}

#[test]
fn a_device_that_is_lost_is_told_and_nothing_is_kept_of_what_it_did_not_finish() {
    let tiny = tiny(DType::Q8_0);
    let task = Task::of(&tiny);
    let mut cuda = on_gpu(&tiny, None);
    let mut memory = cuda.memory(&config());
    task.read(&mut cuda, &mut memory);
    let (n_tokens, n_units) = (memory.n_tokens(), memory.n_units());
    let emulated = cuda.transformer.backend().device().emulation().expect("because it is one");
    memory.begin_chunk(6, Phase::Asking).unwrap();
    emulated.lose();
    let told = cuda.transformer_step(&task.question, &mut memory).unwrap_err();
    assert!(told.contains("emulation of kernels stopped"), "{told}");
    let refused = [
        memory.end_chunk().unwrap_err(),
        memory.suspend().map(|_| ()).unwrap_err(),
        memory.fork(config(), tiny.trained_tokens).map(|_| ()).unwrap_err(),
        memory.rewind(n_tokens - 70).unwrap_err(),
    ];
    for refused in refused {
        assert!(matches!(refused, MemoryError::Backend(_)), "{refused}");
    }
    assert_eq!((memory.n_tokens(), memory.n_units()), (n_tokens, n_units));
}

#[test]
fn a_pass_that_has_no_room_is_told_and_others_go_on() {
    let tiny = tiny(DType::Q8_0);
    let task = Task::of(&tiny);
    let expected = {
        let mut cuda = on_gpu(&tiny, None);
        let mut memory = cuda.memory(&config());
        task.read(&mut cuda, &mut memory);
        task.ask(&mut cuda, &mut memory)
    };
    let mut cuda = on_gpu(&tiny, None);
    let mut memory = cuda.memory(&config());
    task.read(&mut cuda, &mut memory);
    let mut fork = memory.fork(config(), tiny.trained_tokens).unwrap();
    fork.begin_chunk(task.question.len(), Phase::Asking).unwrap();
    // The kernels of few rows have not passed anything on yet.
    let device = cuda.transformer.backend().device();
    device.set_budget(device.taken_bytes());
    let told = cuda.transformer_step(&task.question, &mut fork).unwrap_err();
    assert!(told.contains("no room") && told.contains("raise gpu-bytes"), "{told}");
    let refused = fork.end_chunk().unwrap_err();
    assert!(matches!(refused, MemoryError::Backend(BackendError::NoRoom { .. })), "{refused}");
    drop(fork);
    cuda.transformer.backend().device().set_budget(usize::MAX);
    assert_eq!(task.ask(&mut cuda, &mut memory), expected, "to the bit");
}

#[test]
fn what_a_gpu_is_too_small_for_is_refused_with_the_sum() {
    let tiny = tiny(DType::Q8_0);
    let weights = {
        let cuda = on_gpu(&tiny, None);
        cuda.transformer.backend().device().taken_bytes()
    };
    let runner = |free: usize, unit_bytes| {
        let memory = GpuMemory { total_bytes: Some(weights + free), unit_bytes, index_bytes: None };
        Runner::on(gpu_with(memory), &gguf_model(&tiny))
    };
    let cuda = runner(1 << 20, Some(1 << 20));
    let told = cuda.try_memory(&config()).err().expect("a million of units is all").to_string();
    assert!(told.contains("1048576 bytes for units (gpu-unit-bytes) + 262144 for what"), "{told}");
    let mut cuda = runner(1 << 20, None);
    let mut memory = cuda.memory(&config());
    let plan = cuda.transformer.backend().usage().unwrap().plan;
    assert_eq!((plan.unit_bytes, plan.index_bytes), (1 << 18, 1 << 18));
    let device = cuda.transformer.backend().device();
    assert!(device.taken_bytes() <= weights + (1 << 19), "{} bytes", device.taken_bytes());
    let task = Task::of(&tiny);
    task.read(&mut cuda, &mut memory);
    let before = cuda.transformer.backend().device().taken_bytes();
    task.read(&mut cuda, &mut memory);
    let after = cuda.transformer.backend().device().taken_bytes();
    // But for tables of what there is.
    assert!(after - before < 2048, "a text of twice the length takes {}", after - before);
    // Windows of other texts are what a quarter was planned for: they keep no text from beginning.
    let others: Vec<_> = (0..12)
        .map(|_| {
            let mut other = cuda.memory(&config());
            cuda.read(&mut other, &task.text[..64], Phase::Reading);
            other
        })
        .collect();
    let device = cuda.transformer.backend().device();
    let windows: usize = others.iter().map(Memory::near_bytes).sum();
    let free = kernels::Device::free_bytes(device).unwrap();
    assert!(windows > 1 << 17 && 11 * free < 5 << 19, "{windows} bytes of windows, {free} free");
    cuda.memory(&config());
    let refused = on_gpu_of(&tiny, 10_000);
    assert!(refused.contains("weights do not fit") && refused.contains("no room"), "{refused}");
}

/// What a GPU of so many bytes says to the model.
fn on_gpu_of(tiny: &TinyModel, total_bytes: usize) -> String {
    let scratch = ScratchFolder::new();
    let model = tiny.write_gguf(&scratch.path().join("tiny.gguf"));
    let gpu_memory = GpuMemory { total_bytes: Some(total_bytes), ..GpuMemory::default() };
    let kernels = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation"));
    let device = DeviceChoice::Emulated;
    let options = EngineOptions { device, kernels, gpu_memory, ..EngineOptions::default() };
    Engine::load(&model, &options).err().expect("it is too small").to_string()
}

#[test]
fn texts_in_one_pass_do_not_see_one_another() {
    let tiny = tiny(DType::F16);
    let mut cuda = on_gpu(&tiny, None);
    let texts = [random_tokens(150, tiny.vocab_size, 8), random_tokens(100, tiny.vocab_size, 9)];
    let mut memories = [cuda.memory(&config()), cuda.memory(&config())];
    for (text, memory) in texts.iter().zip(&mut memories) {
        cuda.read(memory, text, Phase::Reading);
    }
    let next = random_tokens(5, tiny.vocab_size, 10);
    let alone = memories.each_ref().map(|memory| memory.fork(config(), 4096).unwrap());
    let alone: Vec<f32> = alone
        .into_iter()
        .zip([&next[..3], &next[3..]])
        .flat_map(|(mut memory, tokens)| cuda.read(&mut memory, tokens, Phase::Asking))
        .collect();
    let [first, second] = &mut memories;
    first.begin_chunk(3, Phase::Asking).unwrap();
    second.begin_chunk(2, Phase::Asking).unwrap();
    let together = cuda.parts(&mut [
        Part { tokens: &next[..3], attention: first },
        Part { tokens: &next[3..], attention: second },
    ]);
    assert_eq!(together, alone);
}

#[test]
fn what_has_no_kernel_is_refused_before_anything_is_read() {
    let tiny = tiny(DType::Q8_0);
    let cuda = on_gpu(&tiny, None);
    let refused = |config: MemoryConfig| match cuda.try_memory(&config) {
        Err(MemoryError::Backend(error)) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("{config:?} is refused"),
    };
    let small = MemoryConfig { unit_tokens: 32, chunk_tokens: 32, ..config() };
    assert!(refused(small).contains("a page of 32"));
    let fixed = MemoryConfig { positions: Positions::Fixed, ..config() };
    assert!(refused(fixed).contains("positions"));
    let clipped = MemoryConfig { attention: AttentionMode::Clipped, ..config() };
    assert!(refused(clipped).contains("clipped"));
    let tallied = MemoryConfig { lookup: LookupPolicy::AttentionMass, ..config() };
    assert!(refused(tallied).contains("attention-mass"));
}

/// Through the engine, whose device is found when it runs.
#[test]
fn a_context_outlives_its_process_on_a_gpu_too() {
    let scratch = ScratchFolder::new();
    let model = tiny(DType::Q8_0).write_gguf(&scratch.path().join("tiny.gguf"));
    let contexts = |device| {
        let store = Store::open(&scratch.path().join("store"), StoreOptions::default()).unwrap();
        Contexts::new(on_device(&model, device), store, "tests")
    };
    let answer = |session: &Session| {
        let mut session = session.fork(session.memory().config()).unwrap();
        session.ask_about("qk", &mut no_progress).unwrap();
        greedy(&mut session, 4)
    };
    let text = letters(9, 250);
    let expected = {
        let contexts = contexts(DeviceChoice::Emulated);
        assert!(contexts.engine().device().contains("emulation"));
        let document = contexts.engine().document_prompt(&text).unwrap();
        let mut context = contexts.create("book", &config(), "a test").unwrap();
        context.read_document(&document, &mut no_progress).unwrap();
        answer(context.session())
    };
    let context = contexts(DeviceChoice::Emulated).open("book").unwrap();
    assert!(context.session().memory().n_units() > 0);
    assert_eq!(answer(context.session()), expected);
    drop(context);
    // The processor rounds otherwise, so that an answer would go on as it did not begin.
    let refused = contexts(DeviceChoice::Cpu).open("book").err().unwrap();
    assert!(matches!(refused, EngineError::Context(ContextError::OtherModel { .. })), "{refused}");
}

#[test]
fn where_no_gpu_is_the_processor_computes_and_it_is_said_why() {
    let scratch = ScratchFolder::new();
    let model = tiny(DType::Q8_0).write_gguf(&scratch.path().join("tiny.gguf"));
    let load = |device| Engine::load(&model, &EngineOptions { device, ..EngineOptions::default() });
    match load(DeviceChoice::Cuda) {
        Ok(_) => {} // a machine with a GPU
        Err(EngineError::Backend(why)) => {
            assert!(why.to_string().contains("driver"), "{why}");
            let engine = load(DeviceChoice::Auto).unwrap();
            assert_eq!(engine.no_gpu(), Some(&why));
            assert!(engine.device().starts_with("cpu"));
        }
        Err(error) => panic!("another error: {error}"),
    }
}
