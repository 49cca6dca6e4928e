//! Each target with the inputs that are kept (`corpus/TARGET`), with pieces of them changed, and with bytes by chance: a fixed
//! number of them, the same in each run, or as many as `FUZZ_RUNS` says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fuzz::TARGETS;

/// Numbers by chance (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// The boards' trees, which are kept as text (`tests/dts`).
fn trees() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let compile = |path: &PathBuf| {
        let output = Command::new("dtc").args(["-q", "-I", "dts", "-O", "dtb"]).arg(path).output();
        output.expect("dtc is there (make setup)").stdout
    };
    paths.iter().map(compile).filter(|blob| !blob.is_empty()).collect()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let kept = paths.iter().map(|path| fs::read(path).unwrap());
    if target == "tree" { trees().into_iter().chain(kept).collect() } else { kept.collect() }
}

/// An input: kept ones with some bytes changed, dropped or doubled, or bytes by chance.
fn input(kept: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if kept.is_empty() || random.below(3) == 0 {
        let length = random.below(600);
        return (0..length).map(|_| random.next() as u8).collect();
    }
    let mut bytes = kept[random.below(kept.len())].clone();
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ => {
                let end = (at + random.below(16)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn runs() -> usize {
    std::env::var("FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(0)
}

fn drive(name: &str, usually: usize) {
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let kept = corpus(name);
    kept.iter().for_each(|bytes| target(bytes));
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
    for _ in 0..usually.max(runs()) {
        target(&input(&kept, &mut random));
    }
}

macro_rules! targets {
    ($($name:ident: $usually:literal,)*) => {
        $(
            #[test]
            fn $name() {
                drive(stringify!($name), $usually);
            }
        )*

        #[test]
        fn no_target_is_left_out() {
            let names = [$(stringify!($name)),*];
            assert!(TARGETS.iter().all(|(target, _)| names.contains(target)) && names.len() == TARGETS.len());
        }
    };
}

/// Or the inputs made of them would not go far.
#[test]
fn the_boards_trees_lead_to_dom0() {
    let far = trees().iter().filter(|blob| fuzz::leads_to_dom0(blob)).count();
    assert!(far >= 2, "{far} of them");
}

targets! {
    tree: 3_000,
    command_line: 30_000,
    kernel: 100_000,
    config: 30_000,
    instructions: 30_000,
    vgic: 10_000,
    events: 3_000,
    grants: 30_000,
    calls: 1_500,
    stream: 1_500,
    context: 3_000,
}
