//! Components that no compiler makes: honest ones with WebAssembly appended by hand, and forged
//! manifests. The attack runs before, or without, any function that the host calls.

use wasmparser::{Parser, Payload};

use super::hostile::load_errors;
use super::*;

/// A core module that is instantiated together with the component it is appended to.
struct Module(Vec<u8>);

impl Module {
    fn new() -> Self {
        Self(b"\0asm\x01\0\0\0".to_vec())
    }

    fn section(mut self, id: u8, content: &[u8]) -> Self {
        self.0.extend(section(id, content));
        self
    }

    /// With function 0, which runs at instantiation.
    fn starting(tables: &[u8], memories: &[u8], code: &[u8]) -> Self {
        let body = [&[0][..], code, &[END]].concat();
        let code = [&[1][..], &leb(body.len()), &body].concat();
        let mut module = Self::new().section(1, &[1, 0x60, 0, 0]).section(3, &[1, 0]);
        if !tables.is_empty() {
            module = module.section(4, tables);
        }
        if !memories.is_empty() {
            module = module.section(5, memories);
        }
        // What `ref.func` names must be declared; an element segment does.
        module.section(8, &[0]).section(9, &[1, 3, 0, 1, 0]).section(10, &code)
    }

    /// Appends this module to `component`, instantiated `times` times.
    fn append_to(&self, component: &mut Vec<u8>, times: usize) {
        let index = core_modules(component);
        component.extend(section(1, &self.0));
        let instance = [&[0][..], &leb(index), &[0]].concat();
        let instances = [leb(times), instance.repeat(times)].concat();
        component.extend(section(2, &instances));
    }
}

/// How many core modules the component has at its own level.
fn core_modules(component: &[u8]) -> usize {
    let mut depth = 0;
    let mut count = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                count += usize::from(depth == 0);
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) if depth > 0 => depth -= 1,
            _ => {}
        }
    }
    count
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// WebAssembly's numbers.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(0x80 | u8::try_from(number & 0x7f).unwrap());
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn honest() -> PluginSpec {
    plugin("hostile/keeps_state")
}

fn with(module: &Module, times: usize) -> PluginSpec {
    let mut spec = honest();
    module.append_to(&mut spec.bytes, times);
    spec
}

async fn refused(module: &Module, times: usize, sentence: &str) {
    let errors = load_errors(with(module, times), bare_backend()).await;
    assert!(errors.contains(sentence), "{errors}");
}

fn load(sandbox: Arc<Sandbox>, spec: PluginSpec) -> Result<Fixture, String> {
    let seen = Seen::default();
    let plugins = Plugins::load_on(sandbox, vec![spec], vec![bare_backend()], observer(&seen));
    Ok(Fixture { plugins: plugins.map_err(|errors| messages(&errors))?, seen })
}

#[tokio::test]
async fn the_component_is_honest_but_for_what_is_appended() {
    let nothing = Module::starting(&[], &[], &[]);
    let sandbox = Sandbox::start(patient()).unwrap();
    let fixture = load(sandbox, with(&nothing, 1)).unwrap();
    fixture.revoke(intent()).await.unwrap();
}

#[tokio::test]
async fn a_loop_in_a_start_function_ends_with_the_processor_time() {
    refused(&Module::starting(&[], &[], LOOP), 1, "more processor time").await;
}

#[tokio::test]
async fn more_memories_than_a_slot_has_are_refused() {
    let one_page = Module::new().section(5, &[1, 0, 1]);
    refused(&one_page, 3, "memories").await;
    let two_in_one = Module::new().section(5, &[2, 0, 1, 0, 1]);
    refused(&two_in_one, 1, "multi").await;
    let of_64_bits = Module::new().section(5, &[1, 4, 1]);
    refused(&of_64_bits, 1, "memory64").await;
    let shared = Module::new().section(5, &[1, 3, 1, 2]);
    refused(&shared, 1, "threads").await;
}

#[tokio::test]
async fn more_memory_than_a_call_may_have_is_refused_at_once() {
    // 600 pages at the start: above the 32 MiB of a call, below the 64 MiB of a slot.
    let module = Module::new().section(5, &[&[1, 0][..], &leb(600)].concat());
    refused(&module, 1, "memory").await;
    let over_the_slot = Module::new().section(5, &[&[1, 0][..], &leb(2_000)].concat());
    refused(&over_the_slot, 1, "memory").await;
}

#[tokio::test]
async fn more_instances_and_tables_than_a_slot_has_are_refused() {
    refused(&Module::starting(&[], &[], &[]), 17, "instances").await;
    let table = Module::new().section(4, &[1, 0x70, 0, 1]);
    refused(&table, 5, "tables").await;
    let large = Module::new().section(4, &[&[1, 0x70, 0][..], &leb(20_001)].concat());
    refused(&large, 1, "table").await;
}

/// One component fills a page of memory and a table with marks; another traps if it finds one. They
/// take the same slots of a small pool in turn, on two threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mark_in_a_table_or_memory_is_seen_by_another_component() {
    let sandbox = Sandbox::start(Limits { calls_max: 2, ..patient() }).unwrap();
    let marks = Module::starting(TABLE, PAGE, MARK);
    let looks = Module::starting(TABLE, PAGE, LOOK);
    let marks = Arc::new(load(Arc::clone(&sandbox), with(&marks, 1)).unwrap());
    let looks = Arc::new(load(Arc::clone(&sandbox), with(&looks, 1)).unwrap());
    let calls: Vec<_> = (0..400)
        .map(|call| {
            let fixture = Arc::clone(if call % 2 == 0 { &marks } else { &looks });
            tokio::spawn(async move { fixture.revoke(intent()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().expect("no mark is found, and every call is served");
    }
    // The look itself must be able to find something.
    let both = [MARK, LOOK].concat();
    let finds = load(sandbox, with(&Module::starting(TABLE, PAGE, &both), 1));
    assert!(finds.err().unwrap().contains("panicked"));
}

#[tokio::test]
async fn forged_manifests_are_refused() {
    let manifest = std::fs::read_to_string(HOSTILE_MANIFEST).unwrap();
    let other_abi = manifest.replace("provider@0.1.0", "provider@0.2.0");
    let twice = manifest.replace("\"connections\": {}", TWO_ADMINS);
    let escape = manifest.replace("A hostile plugin", "\\u001b[2J");
    let huge = manifest.replace("A hostile plugin", &"x".repeat(64 * 1024));
    let key_twice = manifest.replacen('{', "{\"id\": \"claviger.postgres\",", 1);
    for (forged, sentence) in [
        (other_abi.as_str(), "speaks `claviger:provider@0.2.0`"),
        (&twice, "connection `admin` is listed twice"),
        (&escape, "control character"),
        (&huge, "at most 65536 are read"),
        (&key_twice, "duplicate field `id`"),
        ("{\"\\u001b[2J\": 1}", "cannot be read"),
        ("", "cannot be read"),
    ] {
        let spec = PluginSpec { bytes: forged_component(forged), ..honest() };
        let errors = load_errors(spec, bare_backend()).await;
        assert!(errors.contains(sentence), "{errors}");
        assert!(!errors.contains('\u{1b}'), "a manifest moves the operator's cursor");
    }
}

#[tokio::test]
async fn a_second_manifest_hidden_in_a_nested_module_is_refused() {
    let mut spec = honest();
    let manifest = std::fs::read(HOSTILE_MANIFEST).unwrap();
    let name = b"claviger:manifest";
    let content = [&leb(name.len())[..], name, &manifest].concat();
    Module::new().section(0, &content).append_to(&mut spec.bytes, 1);
    let errors = load_errors(spec, bare_backend()).await;
    assert!(errors.contains("has 2 manifests"), "{errors}");
}

/// A component of nothing but a manifest.
fn forged_component(manifest: &str) -> Vec<u8> {
    let name = b"claviger:manifest";
    let content = [&leb(name.len())[..], name, manifest.as_bytes()].concat();
    [&b"\0asm\x0d\0\x01\0"[..], &section(0, &content)].concat()
}

const HOSTILE_MANIFEST: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hostile/plain.json");

const TWO_ADMINS: &str = r#""connections": {
    "admin": { "kind": "http", "why": "to read" },
    "admin": { "kind": "sql", "dialects": ["postgres"], "auth": ["password"], "why": "to write" }
}"#;

const END: u8 = 0x0b;

/// `loop br 0 end`
const LOOP: &[u8] = &[0x03, 0x40, 0x0c, 0, END];

/// 1,000 places for functions.
const TABLE: &[u8] = &[1, 0x70, 0, 0xe8, 0x07];

/// One page.
const PAGE: &[u8] = &[1, 0, 1];

/// `memory.fill` of the page with 0x5a, `table.fill` of the table with function 0.
const MARK: &[u8] = &[
    0x41, 0, 0x41, 0xda, 0, 0x41, 0x80, 0x80, 0x04, 0xfc, 0x0b, 0, // memory.fill
    0x41, 0, 0xd2, 0, 0x41, 0xe8, 0x07, 0xfc, 0x11, 0, // table.fill
];

/// `unreachable` if the first or last word of the page, or the first or last place of the table,
/// holds anything.
const LOOK: &[u8] = &[
    0x41, 0, 0x29, 3, 0, 0x50, 0x45, 0x04, 0x40, 0, END, // i64.load 0
    0x41, 0xf8, 0xff, 0x03, 0x29, 3, 0, 0x50, 0x45, 0x04, 0x40, 0, END, // i64.load 65528
    0x41, 0, 0x25, 0, 0xd1, 0x45, 0x04, 0x40, 0, END, // table.get 0
    0x41, 0xe7, 0x07, 0x25, 0, 0xd1, 0x45, 0x04, 0x40, 0, END, // table.get 999
];
