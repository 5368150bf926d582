//! The cubin cache under damage, bad folders and races: always a miss, never an error.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::cache::{Cache, Entry, Key};
use runtime::compile::Origin;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvf-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(text: &str) -> Key {
    Key::new(text, &["--gpu-architecture=sm_90a".to_string()], (13, 0))
}

fn entry(seed: u8, length: usize) -> Entry {
    let cubin: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    Entry { cubin: cubin.into(), log: format!("log {seed}") }
}

/// The one file in the cache, which a fresh `Cache` (with an empty memory) must then read.
fn only_file(folder: &Path) -> PathBuf {
    let inside = |p: &Path| fs::read_dir(p).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let files: Vec<PathBuf> = inside(&folder.join("v1")).iter().flat_map(|p| inside(p)).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn what_is_put_is_found_in_memory_then_on_disk() {
    let folder = Folder::new("round-trip");
    let cache = Cache::at(&folder.0);
    assert!(cache.get(&key("a")).is_none());
    cache.put(&key("a"), &entry(1, 5000));
    assert_eq!(cache.get(&key("a")), Some((entry(1, 5000), Origin::Memory)));
    let again = Cache::at(&folder.0);
    assert_eq!(again.get(&key("a")), Some((entry(1, 5000), Origin::Disk)));
    assert_eq!(again.get(&key("a")), Some((entry(1, 5000), Origin::Memory)));
    assert!(again.get(&key("b")).is_none());
    assert_eq!(again.usage().0, 1);
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let file = only_file(&folder.0);
    assert_eq!((mode(&folder.0.join("v1")), mode(file.parent().unwrap()), mode(&file)), (0o700, 0o700, 0o600));
}

#[test]
fn a_truncated_entry_is_a_miss() {
    let folder = Folder::new("truncated");
    Cache::at(&folder.0).put(&key("a"), &entry(2, 300));
    let file = only_file(&folder.0);
    let whole = fs::read(&file).unwrap();
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(Cache::at(&folder.0).get(&key("a")).is_none(), "cut to {length}");
    }
    fs::write(&file, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(Cache::at(&folder.0).get(&key("a")).is_none(), "a byte too many");
    fs::write(&file, &whole).unwrap();
    assert!(Cache::at(&folder.0).get(&key("a")).is_some());
}

#[test]
fn any_flipped_bit_is_a_miss() {
    let (key, entry) = (key("a"), entry(3, 40));
    let whole = entry.to_bytes(&key);
    assert_eq!(Entry::from_bytes(&whole, &key), Some(entry));
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::from_bytes(&bytes, &key).is_none(), "bit {bit}");
    }
}

#[test]
fn absurd_lengths_are_a_miss() {
    let key = key("a");
    let whole = entry(4, 64).to_bytes(&key);
    for at in [48, 56] {
        for length in [0, 1, 63, 65, 1 << 32, u64::MAX / 2, u64::MAX - 7, u64::MAX] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(length));
            assert!(Entry::from_bytes(&bytes, &key).is_none(), "{length} at {at}");
        }
    }
}

#[test]
fn an_entry_under_another_key_is_a_miss_and_is_replaced() {
    let folder = Folder::new("wrong-key");
    Cache::at(&folder.0).put(&key("a"), &entry(5, 100));
    let file = only_file(&folder.0);
    fs::write(&file, entry(6, 100).to_bytes(&key("b"))).unwrap();
    let cache = Cache::at(&folder.0);
    assert!(cache.get(&key("a")).is_none());
    cache.put(&key("a"), &entry(5, 100));
    assert!(Cache::at(&folder.0).get(&key("a")).is_some());
}

#[test]
fn a_link_or_a_folder_in_the_entrys_place_is_a_miss() {
    let folder = Folder::new("link");
    Cache::at(&folder.0).put(&key("a"), &entry(7, 100));
    let file = only_file(&folder.0);
    let elsewhere = folder.0.join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert!(Cache::at(&folder.0).get(&key("a")).is_none());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let cache = Cache::at(&folder.0);
    assert!(cache.get(&key("a")).is_none());
    cache.put(&key("a"), &entry(7, 100));
    assert!(cache.get(&key("a")).is_some(), "memory still serves it");
}

#[test]
fn folders_that_cannot_be_used_only_turn_the_disk_off() {
    let folder = Folder::new("bad");
    let file = folder.0.join("file");
    fs::write(&file, b"").unwrap();
    let open = folder.0.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    for bad in [file.as_path(), &file.join("below"), &open, Path::new("/proc/kvfuse"), Path::new("/dev/null")] {
        let cache = Cache::at(bad);
        assert!(cache.folder().is_err(), "{bad:?}");
        cache.put(&key("a"), &entry(8, 10));
        assert_eq!(cache.get(&key("a")).map(|(_, from)| from), Some(Origin::Memory));
    }
    assert!(Cache::at(&open).folder().is_err_and(|why| why.contains("others may write it")));
}

#[test]
fn a_folder_that_vanishes_or_closes_later_is_no_error() {
    let folder = Folder::new("vanish");
    let cache = Cache::at(&folder.0);
    fs::remove_dir_all(&folder.0).unwrap();
    fs::write(&folder.0, b"now a file").unwrap();
    cache.put(&key("a"), &entry(9, 10));
    assert!(cache.get(&key("a")).is_some() && cache.get(&key("b")).is_none());
    fs::remove_file(&folder.0).unwrap();
    let read_only = Folder::new("read-only");
    let cache = Cache::at(&read_only.0);
    fs::set_permissions(read_only.0.join("v1"), fs::Permissions::from_mode(0o500)).unwrap();
    cache.put(&key("a"), &entry(9, 10));
    assert!(cache.get(&key("a")).is_some());
    fs::set_permissions(read_only.0.join("v1"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn no_home_means_no_disk() {
    let cache = Cache::from_env(&|_| None);
    assert!(cache.folder().is_err_and(|why| why.contains("HOME")));
    cache.put(&key("a"), &entry(10, 10));
    assert!(cache.get(&key("a")).is_some());
}

/// One round of the race: everyone wants the same few entries and writes those that are missing.
fn race(folder: &Path, rounds: usize) {
    for round in 0..rounds {
        let cache = Cache::at(folder);
        for text in 0..4_u8 {
            let (key, want) = (key(&format!("race {} {text}", round % 3)), entry(text, 20_000));
            match cache.get(&key) {
                Some((found, _)) => assert!(found == want, "someone else's bytes"),
                None => cache.put(&key, &want),
            }
            assert!(cache.get(&key).is_some_and(|(found, _)| found == want));
        }
    }
}

#[test]
fn threads_and_processes_may_race() {
    if let Some(folder) = std::env::var_os("KVF_TEST_RACE") {
        return race(Path::new(&folder), 20);
    }
    let folder = Folder::new("race");
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| race(&folder.0, 20)))));
    let processes: Vec<_> = (0..16)
        .map(|_| {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "threads_and_processes_may_race"]).env("KVF_TEST_RACE", &folder.0);
            again.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let cache = Cache::at(&folder.0);
    assert_eq!(cache.usage().0, 12);
    let left: Vec<_> = fs::read_dir(folder.0.join("v1")).unwrap().flat_map(|d| fs::read_dir(d.unwrap().path()).unwrap()).filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "temporary files left: {left:?}");
}
