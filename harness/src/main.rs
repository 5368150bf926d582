//! The harness: see [`harness::command`].

fn main() -> std::process::ExitCode {
    harness::command::main()
}
