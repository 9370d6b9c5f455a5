//! The filter that looks at numbers only, as a tree: about eight comparisons for any call. The
//! kernel tries a new filter on every number there is, so a chain of comparisons would cost each
//! start of a sandbox a millisecond, and each call that is not known to be allowed its length.

use seccompiler::{BpfProgram, sock_filter};
use std::collections::BTreeMap;

/// What the kernel puts before the number, to tell kinds of processors apart (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xc000_00f3;
/// Where number and kind of processor are in `seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
/// Instructions: load a word; jump if equal, if not below; return.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_FROM: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Makes the program that gives each number its answer (`SECCOMP_RET_…`), and all that have none
/// the other one. A call by another kind of processor kills the process.
pub(super) fn program(answers: &BTreeMap<u32, u32>, other: u32) -> BpfProgram {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCH_AT),
        instruction(JUMP_EQUAL, 1, 0, ARCH),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, 0, 0, NUMBER_AT),
    ];
    program.extend(tree(&stretches(answers, other)));
    program
}

/// Returns from which number on which answer is given, in ascending order, beginning with 0.
fn stretches(answers: &BTreeMap<u32, u32>, other: u32) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut add = |from: u32, answer: u32| {
        if found.last().is_none_or(|last| last.1 != answer) {
            found.push((from, answer));
        }
    };
    let mut next = 0;
    for (&number, &answer) in answers {
        if number > next {
            add(next, other);
        }
        add(number, answer);
        next = number + 1;
    }
    add(next, other);
    found
}

fn tree(stretches: &[(u32, u32)]) -> BpfProgram {
    let (below, from) = stretches.split_at(stretches.len() / 2);
    let [(start, answer), ..] = from else { return Vec::new() };
    if below.is_empty() {
        return vec![instruction(RETURN, 0, 0, *answer)];
    }
    let (below, from) = (tree(below), tree(from));
    let skipped = u8::try_from(below.len()).expect("the tables have far fewer than 256 stretches");
    let mut program = vec![instruction(JUMP_FROM, skipped, 0, *start)];
    program.extend(below);
    program.extend(from);
    program
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would; returns its answer.
    fn answer(program: &BpfProgram, arch: u32, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            at += 1 + match code {
                LOAD => {
                    loaded = if k == ARCH_AT { arch } else { number };
                    0
                }
                JUMP_EQUAL => jump(loaded == k),
                JUMP_FROM => jump(loaded >= k),
                _ => return k,
            };
        }
    }

    proptest! {
        #[test]
        fn each_number_gets_its_answer(
            answers in proptest::collection::btree_map(0..400_u32, 0..3_u32, 0..100),
        ) {
            let program = program(&answers, 9);
            for number in (0..401).chain([0x4000_0000, u32::MAX]) {
                let expected = answers.get(&number).copied().unwrap_or(9);
                prop_assert_eq!(answer(&program, ARCH, number), expected);
            }
            let foreign = answer(&program, ARCH + 1, 0);
            prop_assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }
}
