//! Models from the hub: a server of our own speaks its protocol on this machine, with a fixture model in shards behind it.

/// The rest needs the feature, whose TLS and HTTP nothing else here wants.
#[cfg(not(feature = "hub"))]
#[test]
fn a_model_comes_from_the_hub() {
    println!("SKIPPED a_model_comes_from_the_hub: built without it; cargo test --release -p harness --features hub --test hub");
}

#[cfg(feature = "hub")]
mod served {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};
    use std::sync::{Arc, Mutex};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// Serves a folder as the model `someone/tiny`; `lost` is a file that it lists and does not have.
    struct Hub {
        endpoint: String,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Hub {
        fn of(folder: PathBuf, lost: Option<&'static str>) -> Hub {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let asked = Arc::new(Mutex::new(Vec::new()));
            let (here, log) = (endpoint.clone(), asked.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), &folder, lost, &here, &log);
                }
            });
            Hub { endpoint, asked }
        }
    }

    fn answer(mut stream: TcpStream, folder: &Path, lost: Option<&str>, here: &str, asked: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = request.split_whitespace().nth(1).unwrap_or_default().to_string();
        asked.lock().unwrap().push(path.clone());
        let range = headers.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(String::from));
        let head = |status: &str, more: &str, length: usize| format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n");
        let mut say = |text: String, body: &[u8]| stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body)).unwrap_or(());
        if path == "/api/models/someone/tiny/revision/main" {
            let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let files: Vec<String> = names.map(|name| format!("{{\"rfilename\": \"{name}\"}}")).collect();
            let body = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", files.join(", "));
            return say(head("200 OK", "Content-Type: application/json\r\n", body.len()), body.as_bytes());
        }
        let stored = path.strip_prefix("/someone/tiny/resolve/main/").or(path.strip_prefix("/far/")).unwrap_or_default();
        let file = folder.join(stored);
        if stored.is_empty() || lost == Some(stored) || !file.is_file() {
            return say(head("404 Not Found", "", 0), b"");
        }
        let mark = format!("x-repo-commit: {COMMIT}\r\netag: \"{stored}-1\"\r\n");
        // large files lie elsewhere
        if stored.ends_with(".safetensors") && !path.starts_with("/far/") {
            let more = format!("{mark}x-linked-etag: \"{stored}-1\"\r\nLocation: {here}/far/{stored}\r\n");
            return say(head("302 Found", &more, 0), b"");
        }
        let bytes = std::fs::read(file).unwrap();
        let (first, last) = range.as_deref().and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse().unwrap_or(bytes.len() - 1));
        let more = format!("{mark}Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
        say(head("206 Partial Content", &more, last + 1 - first), &bytes[first..=last]);
    }

    fn fixture() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/qwen2-yarn-sharded")
    }

    fn temporary(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("kvfuse-hub-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Two passages of 24 tokens.
    fn corpus(folder: &Path) -> PathBuf {
        let path = folder.join("ids.npy");
        let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': (2, 24), }}{}\n", " ".repeat(12));
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend((0..48_i32).flat_map(|i| (i * 7 % 50).to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn harness(endpoint: &str, home: &Path, model: &str, corpus: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.env("HF_ENDPOINT", endpoint).env("HF_HOME", home).env_remove("HF_TOKEN");
        command.args(["ppl", "--json", "--codec", "int4", "--backend", "cpu", "--passages", "2", "--ctx", "20"]);
        command.arg("--model").arg(model).arg("--corpus").arg(corpus).output().unwrap()
    }

    fn ppl_base(output: &Output) -> f64 {
        let text = String::from_utf8_lossy(&output.stderr);
        // a random model may be too bad for a broken codec to show: the run is then invalid, and its numbers are there
        assert!(matches!(output.status.code(), Some(0 | 1)), "{text}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["ppl_base"].as_f64().unwrap()
    }

    #[test]
    fn a_model_comes_from_the_hub() {
        let home = temporary("whole");
        let (hub, ids) = (Hub::of(fixture(), None), corpus(&home));
        let found = ppl_base(&harness(&hub.endpoint, &home, "hub:someone/tiny", &ids));
        let local = ppl_base(&harness(&hub.endpoint, &home, &fixture().display().to_string(), &ids));
        assert_eq!(found, local, "the fetched model is the local one");
        let asked = hub.asked.lock().unwrap().clone();
        let shards = asked.iter().filter(|path| path.starts_with("/far/model-0000")).count();
        assert!(shards >= 7, "{asked:?}");
        // everything is kept: with the hub gone the model still opens
        let gone = harness("http://127.0.0.1:9", &home, "hub:someone/tiny", &ids);
        assert_eq!(ppl_base(&gone), found);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_the_hub_lacks_is_named() {
        let home = temporary("lost");
        let ids = corpus(&home);
        let failure = |hub: &Hub, model: &str| {
            let output = harness(&hub.endpoint, &home, model, &ids);
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let hub = Hub::of(fixture(), Some("model-00003-of-00007.safetensors"));
        let (code, text) = failure(&hub, "hub:someone/tiny");
        assert!(code == Some(4) && text.contains("model-00003-of-00007.safetensors"), "{text}");
        let (code, text) = failure(&hub, "hub:nobody/nothing");
        assert!(code == Some(4) && text.contains("nobody/nothing"), "{text}");
        let empty = temporary("empty");
        std::fs::write(empty.join("config.json"), "{}").unwrap();
        let (code, text) = failure(&Hub::of(empty.clone(), None), "hub:someone/tiny");
        assert!(code == Some(4) && text.contains("no safetensors"), "{text}");
        for folder in [home, empty] {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}
