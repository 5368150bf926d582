//! The command line of the harness, whole, so that a program with codecs of its own has it too. Exit codes: 0 ok, 1 gate failed or run invalid, 2 usage, 3 environment, 4 data.

use std::io::Write;
use std::process::ExitCode;

use crate::error::Result;
use crate::{audit, calibrate, compare, doctor, emit, ppl, report, roundtrip, seeds, sweep, tune, validate};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "harness", version, about = "Measures what a compressed KV cache costs a language model")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// perplexity and KL of a model that reads its keys and values from a coded cache
    Ppl(ppl::Options),
    /// fits the coordinates of the kvfuse codecs to a model
    Calibrate(calibrate::Options),
    /// how few bits a family of codecs needs to be as good as a baseline, by the error of its rows
    Sweep(sweep::Options),
    /// the published PCA recipe, its switches one by one, beside our codecs; what the codec loses and what the kernel
    Seeds(seeds::Options),
    /// how far keys and values are from Gaussian, beside what Gaussian rows score
    Audit(audit::Options),
    /// two rows, paired passage by passage
    Compare(compare::Options),
    /// runs of `ppl` as one document
    Report(report::join::Options),
    /// error of every codec on made-up rows, and whether all readers of a cache agree
    Validate(validate::Options),
    /// one array of rows through one codec
    Roundtrip(roundtrip::Options),
    /// a kernel at one of its stages, down to the cubin
    Emit(emit::Options),
    /// measures how decode kernels are best cut on this GPU, for plans to read
    Tune(tune::Options),
    /// what this machine has, and what will run where
    Doctor(doctor::Options),
}

/// Reads the arguments, does what they ask for, prints, and says how it went.
pub fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Ppl(options) if options.output.dry_run => {
            say(&format!("{:#}", ppl::Plan::of(&options)?.describe(&options)));
            Ok(())
        }
        Command::Ppl(options) => {
            let found = ppl::run(&options)?;
            say(&if options.output.json { found.json()? } else { found.summary() });
            if let Some(folder) = options.output.folder()? {
                found.write(folder)?;
                eprintln!("wrote {}", folder.join("report.json").display());
            }
            found.check()
        }
        Command::Calibrate(options) if options.dry_run => {
            say(&format!("{:#}", calibrate::describe(&options)?));
            Ok(())
        }
        Command::Calibrate(options) => {
            let done = calibrate::run(&options)?;
            say(&if options.json { done.json()? } else { done.table() });
            Ok(())
        }
        Command::Sweep(options) if options.output.dry_run => {
            say(&format!("{:#}", sweep::describe(&options)?));
            Ok(())
        }
        Command::Sweep(options) => {
            let found = sweep::run(&options)?;
            say(&if options.output.json { found.json()? } else { found.table() });
            options.output.folder()?.map_or(Ok(()), |folder| found.write(folder))
        }
        Command::Seeds(options) if options.output.dry_run => {
            say(&format!("{:#}", seeds::describe(&options)?));
            Ok(())
        }
        Command::Seeds(options) => {
            let found = seeds::run(&options)?;
            say(&if options.output.json { found.json()? } else { found.table() });
            options.output.folder()?.map_or(Ok(()), |folder| found.write(folder))?;
            found.check()
        }
        Command::Audit(options) if options.output.dry_run => {
            say(&format!("{:#}", audit::describe(&options)?));
            Ok(())
        }
        Command::Audit(options) => {
            let found = audit::run(&options)?;
            say(&if options.output.json { found.json()? } else { found.table() });
            options.output.folder()?.map_or(Ok(()), |folder| found.write(folder))
        }
        Command::Compare(options) => {
            let found = compare::run(&options)?;
            say(&if options.output.json { found.json()? } else { found.table() });
            Ok(())
        }
        Command::Report(options) => {
            let joined = report::join::run(&options)?;
            say(&if options.output.json { joined.json()? } else { joined.summary() });
            joined.check()
        }
        Command::Validate(options) if options.output.dry_run => {
            say(&format!("{:#}", validate::describe(&options)?));
            Ok(())
        }
        Command::Validate(options) => {
            let found = validate::run(&options)?;
            if let Some(folder) = options.output.folder()? {
                found.write(folder)?;
            }
            say(&if options.output.json { found.json()? } else { found.table() });
            found.check()
        }
        Command::Roundtrip(options) => roundtrip::run(&options).map(|text| say(&text)),
        Command::Emit(options) => emit::run(&options).map(|text| say(&text)),
        Command::Tune(options) => tune::run(&options).map(|text| say(&text)),
        Command::Doctor(options) => {
            say(&doctor::run(&options));
            Ok(())
        }
    }
}

/// Prints; a reader that closed the pipe is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
