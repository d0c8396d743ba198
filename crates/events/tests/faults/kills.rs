//! Kills the child at moments that a seed decides, starts it again, and has the history judged.
//!
//! `LAUF_FAULTS_SEED` repeats the decisions of a run, though not what the machine made of them;
//! `LAUF_FAULTS_KILLS` and `LAUF_FAULTS_KILLS_ON_NATS` say how many kills.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use oorandom::Rand64;

use crate::child::{BEGIN, DIR, IDLE, MARK, NATS, ROUND, SEED};
use crate::history::History;
use crate::nats::Nats;

/// How many times the child is killed.
const KILLS: u64 = 1_000;
/// How many times with the messages on a NATS server: a process takes longer to start then.
const KILLS_ON_NATS: u64 = 100;
/// In one of so many cases the NATS server dies as well.
const SERVER_TOO: u64 = 4;
/// Folders that this happens in side by side.
const LANES: u64 = 2;
/// A child that says nothing for so long says nothing any more.
const SILENCE: Duration = Duration::from_secs(60);
/// What is shown of a history that breaks a promise.
const SHOWN: usize = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_thousand_kills_break_no_promise() {
    let seed = setting("LAUF_FAULTS_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let kills = setting("LAUF_FAULTS_KILLS").unwrap_or(KILLS);
    println!("LAUF_FAULTS_SEED={seed} LAUF_FAULTS_KILLS={kills}");
    let said: Vec<String> = thread::scope(|scope| {
        let lane = |lane| scope.spawn(move || one_lane(seed ^ lane, kills / LANES, None));
        let lanes: Vec<_> = (0..LANES).map(lane).collect();
        lanes
            .into_iter()
            .filter_map(|lane| lane.join().unwrap())
            .collect()
    });
    assert!(
        said.is_empty(),
        "LAUF_FAULTS_SEED={seed}: {}",
        said.join("\n")
    );
}

#[test]
fn a_hundred_kills_on_jetstream_break_no_promise() {
    let Some(nats) = Nats::start() else { return };
    let seed = setting("LAUF_FAULTS_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let kills = setting("LAUF_FAULTS_KILLS_ON_NATS").unwrap_or(KILLS_ON_NATS);
    println!("LAUF_FAULTS_SEED={seed} LAUF_FAULTS_KILLS_ON_NATS={kills}");
    let wrong = one_lane(seed, kills, Some(nats));
    assert!(
        wrong.is_none(),
        "LAUF_FAULTS_SEED={seed}: {}",
        wrong.unwrap_or_default()
    );
}

/// Kills as often as it is told. Says what went wrong.
fn one_lane(seed: u64, kills: u64, mut nats: Option<Nats>) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Rand64::new(seed.into());
    let mut lane = Lane {
        nats: nats.as_ref().map(Nats::url),
        ..Lane::default()
    };
    for round in 0..kills {
        if let Some(nats) = nats
            .as_mut()
            .filter(|_| chance.rand_range(0..SERVER_TOO) == 0)
        {
            nats.kill();
            nats.run();
        }
        let child = lane.start(dir.path(), round, &mut chance, false);
        if let Err(wrong) = lane.until_killed(child, &mut chance) {
            return Some(format!("kill {round} of {kills}: {wrong}"));
        }
    }
    let child = lane.start(dir.path(), kills, &mut chance, true);
    let wrong = lane.until_all_is_done(child).err();
    println!(
        "{kills} kills: {} lines, {} messages and tasks",
        lane.lines.len(),
        lane.begin
    );
    wrong.map(|wrong| format!("after {kills} kills: {wrong}"))
}

/// A child, and what it says.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One folder's history.
#[derive(Default)]
struct Lane {
    history: History,
    lines: Vec<String>,
    /// The next number that was never used.
    begin: u64,
    /// Where messages are, if not in the folder.
    nats: Option<String>,
}

impl Lane {
    fn start(&self, dir: &Path, round: u64, chance: &mut Rand64, idle: bool) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child::child", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(ROUND, round.to_string())
            .env(BEGIN, self.begin.to_string())
            .env(SEED, chance.rand_u64().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(url) = &self.nats {
            command.env(NATS, url);
        }
        if idle {
            command.env(IDLE, "1");
        }
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Running { child, lines }
    }

    fn hear(&mut self, line: String) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["send", _, _, number] = words.as_slice() {
            let number: u64 = number.parse().unwrap();
            self.begin = self.begin.max(number + 1);
        }
        let heard = self.history.hear(&line);
        self.lines.push(line);
        heard.map_err(|violation| format!("{violation}\n{}", self.last_lines()))
    }

    /// The last lines about what the last line is about.
    fn last_lines(&self) -> String {
        let about = |line: &str| {
            line.split(' ')
                .skip(1)
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let last = self.lines.last().map(|line| about(line));
        let of_it = |line: &&String| *line == "start" || Some(about(line)) == last;
        let mut shown: Vec<&str> = self
            .lines
            .iter()
            .rev()
            .filter(of_it)
            .map(|s| &**s)
            .collect();
        shown.truncate(SHOWN);
        shown.reverse();
        shown.join("\n")
    }

    /// Lets a child live for a while, which may be too short to begin anything, and kills it. What it
    /// still said before it died counts as well.
    fn until_killed(&mut self, mut running: Running, chance: &mut Rand64) -> Result<(), String> {
        if chance.rand_range(0..4) == 0 {
            // While it starts, most often.
            thread::sleep(Duration::from_micros(chance.rand_range(0..80_000)));
        } else {
            for _ in 0..chance.rand_range(1..250) {
                self.next(&running)?;
            }
            thread::sleep(Duration::from_micros(chance.rand_range(0..3_000)));
        }
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        while let Ok(line) = running.lines.recv() {
            self.hear(line)?;
        }
        Ok(())
    }

    fn until_all_is_done(&mut self, running: Running) -> Result<(), String> {
        while let Some(missing) = self.history.missing() {
            self.next(&running)
                .map_err(|error| format!("{missing}; {error}"))?;
        }
        Ok(())
    }

    fn next(&mut self, running: &Running) -> Result<(), String> {
        match running.lines.recv_timeout(SILENCE) {
            Ok(line) => self.hear(line),
            Err(RecvTimeoutError::Timeout) => Err("the child says nothing".to_owned()),
            Err(RecvTimeoutError::Disconnected) => Err("the child ended by itself".to_owned()),
        }
    }
}
