//! From rules to the classic BPF program that seccomp(2) takes.
//!
//! The number of the call is found by binary search over runs of calls with the same verdict, about seven comparisons. (Kernels from 5.11
//! on remember which calls are always allowed and do not run the program for them at all.)

use super::policy::{Action, Cond, Rule, Test};

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;

// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

// Instruction codes, from linux/bpf_common.h.
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

type Program = Vec<libc::sock_filter>;

fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn errno(value: u16) -> u32 {
    RET_ERRNO | u32::from(value)
}

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// What happens from this call number on, up to the next run's start.
struct Run {
    start: u32,
    action: Action,
}

pub(super) fn compile(arch: u32, newest: u32, rules: &[Rule]) -> Program {
    let mut program = vec![
        op(LOAD, ARCH),
        branch(JUMP_EQ, arch, 1, 0),
        op(RETURN, errno(ENOSYS)),
        op(LOAD, NR),
        branch(JUMP_GT, newest, 0, 1),
        op(RETURN, errno(ENOSYS)),
    ];
    search(&mut program, &runs(rules));
    program
}

/// Turns the rules into runs that cover all numbers, gaps being EPERM.
fn runs(rules: &[Rule]) -> Vec<Run> {
    let mut sorted: Vec<&Rule> = rules.iter().collect();
    sorted.sort_by_key(|rule| rule.nr);
    let mut runs: Vec<Run> = Vec::new();
    let mut next = 0;
    let mut push = |start: u32, action: Action| match runs.last() {
        Some(last) if last.action == action => {}
        _ => runs.push(Run { start, action }),
    };
    for rule in sorted {
        if rule.nr > next {
            push(next, Action::Errno(EPERM));
        }
        push(rule.nr, rule.action);
        next = rule.nr + 1;
    }
    push(next, Action::Errno(EPERM));
    runs
}

fn search(program: &mut Program, runs: &[Run]) {
    match runs {
        [] => program.push(op(RETURN, errno(EPERM))),
        [only] => verdict(program, only.action),
        more => {
            let (low, high) = more.split_at(more.len() / 2);
            let pivot = high.first().map_or(0, |run| run.start);
            let mut left = Program::new();
            search(&mut left, low);
            // Conditional jumps reach 255 instructions, plain ones any distance.
            match u8::try_from(left.len()) {
                Ok(distance) => program.push(branch(JUMP_GE, pivot, distance, 0)),
                Err(_) => {
                    program.push(branch(JUMP_GE, pivot, 0, 1));
                    program.push(op(JUMP, u32::try_from(left.len()).unwrap_or(u32::MAX)));
                }
            }
            program.append(&mut left);
            search(program, high);
        }
    }
}

fn verdict(program: &mut Program, action: Action) {
    match action {
        Action::Allow => program.push(op(RETURN, RET_ALLOW)),
        Action::Errno(value) => program.push(op(RETURN, errno(value))),
        Action::AllowIf { any, otherwise } => {
            for all in any {
                conditions(program, all);
            }
            program.push(op(RETURN, errno(otherwise)));
        }
    }
}

/// Allow if all hold, else fall through to what comes after.
fn conditions(program: &mut Program, all: &[Cond]) {
    // Built from the end, because each test must know how far it is to the instruction after the `RETURN`.
    let mut tail = vec![op(RETURN, RET_ALLOW)];
    for cond in all.iter().rev() {
        // At most a handful of tests of three instructions each.
        let miss = u8::try_from(tail.len()).unwrap_or(u8::MAX);
        // The low word of a 64-bit argument; both supported machines are little-endian.
        let mut test = vec![op(LOAD, ARGS + 8 * u32::from(cond.arg))];
        match cond.test {
            Test::Is(value) => test.push(branch(JUMP_EQ, value, 0, miss)),
            Test::IsNot(value) => test.push(branch(JUMP_EQ, value, miss, 0)),
            Test::NoneOf(mask) => {
                test.push(op(AND, mask));
                test.push(branch(JUMP_EQ, 0, 0, miss));
            }
        }
        test.append(&mut tail);
        tail = test;
    }
    program.append(&mut tail);
}

/// Runs a program as the kernel would, for tests.
#[cfg(test)]
pub(super) fn run(program: &[libc::sock_filter], arch: u32, nr: u32, args: &[u64]) -> u32 {
    let (mut at, mut acc) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut go = |yes: bool| at += usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            LOAD => {
                acc = match i.k {
                    NR => nr,
                    ARCH => arch,
                    offset => {
                        let arg = args
                            .get(((offset - ARGS) / 8) as usize)
                            .copied()
                            .unwrap_or(0);
                        if (offset - ARGS).is_multiple_of(8) {
                            (arg & 0xffff_ffff) as u32
                        } else {
                            (arg >> 32) as u32
                        }
                    }
                }
            }
            AND => acc &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQ => go(acc == i.k),
            JUMP_GT => go(acc > i.k),
            JUMP_GE => go(acc >= i.k),
            RETURN => return i.k,
            other => panic!("unknown instruction {other:x}"),
        }
    }
}
