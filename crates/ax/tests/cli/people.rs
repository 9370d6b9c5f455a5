//! Questions, signals and sleeps: sessions that wait, and go on.

use super::world::{World, wait};
use expect_test::expect;
use rustix::process::Signal;

/// Asks, and says what the answer was.
const ASKS: &str = r#"
    printf '{"type":"ask","key":"q","kind":"approval","prompt":"Send it?"}\n'
    wait_for answered
    case $line in
        *approve*) say "sent" ;;
        *) why=${line##*'"text":"'}; say "not sent: ${why%%'"'*}" ;;
    esac
    finish
"#;

#[test]
fn a_session_that_waits_for_a_person_is_5_and_goes_on_when_it_is_answered() {
    let world = World::new();
    world.agent("asks", "jsonl", ASKS, "{parkAfter: 10ms}");
    let ran = world.ax(&["run", "-a", "asks", "-s", "mail", "go"]);
    expect![[r#"
        -- stderr
        waits for an answer to ask_1: Send it?
          ax answer ses_1 ask_1 --approve or --deny
        -- exit 5
    "#]]
    .assert_eq(&ran.shown());
    let shown = world.ax(&["session", "show", "mail"]);
    expect![[r#"
        session    ses_1
        name       mail
        agent      asks@1
        sandbox    process (no isolation)
        state      waiting-ask
        waits for  ask_1: Send it?
        execution  exec_1, attempt_1
        open       ask_1: Send it?
        answer     ax answer ses_1 ask_1 --approve or --deny
        events     6
        created    TIME
        updated    TIME
        -- exit 0
    "#]]
    .assert_eq(&shown.shown());
    let wrong = world.ax(&["answer", "mail", "--text", "maybe"]);
    assert!(wrong.err.starts_with("error[AX1010]"), "{wrong:?}");
    let answered = world.ax(&["answer", "mail", "--approve"]);
    assert_eq!((answered.code, answered.out.as_str()), (0, "answered\n"));
    assert!(answered.err.contains("no server runs: `ax follow mail`"), "{answered:?}");
    let followed = world.ax(&["follow", "mail", "--until-idle"]);
    assert_eq!((followed.code, followed.out.as_str()), (0, "> go\nsent\n"), "{followed:?}");
    let again = world.ax(&["answer", "mail", "ask_1", "--deny"]);
    assert!(again.err.starts_with("error[AX1009]"), "{again:?}");
}

#[test]
fn whoever_waits_sees_the_answer_that_came_from_elsewhere() {
    let world = World::new();
    world.agent("asks", "jsonl", ASKS, "");
    let run = world.start(&["run", "-a", "asks", "-s", "mail", "--wait", "go"]);
    wait("the session", || world.ax(&["session", "show", "mail"]).code == 0);
    world.wait_state("mail", "waiting_ask");
    world.ok(&["answer", "mail", "--deny", "--reason", "too early"]);
    let ran = run.end();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("not sent: too early"), "{ran:?}");
}

#[test]
fn a_question_is_asked_at_the_terminal() {
    let world = World::new();
    world.agent("asks", "jsonl", ASKS, "");
    let mut run = world.terminal(&["run", "-a", "asks", "go"]);
    run.shows("sandbox: process (no isolation)");
    run.shows("Send it? [yes, or no and why]\u{1b}[0m ");
    run.types("perhaps");
    run.shows("perhaps\r\n\u{1b}[1m[yes, or no and why]\u{1b}[0m ");
    run.types("no, too early");
    run.shows("not sent: too early");
    assert_eq!(run.end(), 0);
}

#[test]
fn tokens_are_shown_as_they_come_and_lost_ones_are_marked() {
    let world = World::new();
    let script = r#"
        delta() { printf '{"type":"delta","block":"%s","text":"%s"}\n' "$1" "$2"; }
        here=$AX_WORKSPACE/../../../..
        if test ! -e "$here/seen"; then
            delta a "half a sen"
            while test ! -e "$here/seen"; do sleep 0.02; done
            exit 1
        fi
        delta b "a whole "
        delta b "sentence"
        printf '{"type":"output","block":"b"}\n'
        finish
    "#;
    world.agent("streams", "jsonl", script, "{retry: {attempts: 2, backoffMin: 10ms}}");
    let mut run = world.terminal(&["run", "-a", "streams", "go"]);
    run.shows("half a sen");
    world.write("seen", "");
    run.shows("[superseded: ");
    run.shows("attempt 1 was lost: ");
    run.shows("a whole sentence");
    assert_eq!(run.end(), 0);
}

#[test]
fn a_signal_wakes_a_session_that_waits_for_it() {
    let world = World::new();
    let script = r#"
        printf '{"type":"signal","key":"s","name":"paid"}\n'
        wait_for signaled
        say "paid ${line##*'"payload":'}"
        finish
    "#;
    world.agent("waits", "jsonl", &script.replace("${line##*'\"payload\":'}", "it is"), "");
    let server = world.serve();
    let session = world.ok(&["run", "-a", "waits", "--detach", "go"]);
    world.wait_state(&session, "waiting_signal");
    assert_eq!(world.ok(&["signal", &session, "paid", "{\"cents\": 5}", "--key", "k"]), "recorded");
    let again = world.ok(&["signal", &session, "paid", "{\"cents\": 5}", "--key", "k"]);
    assert_eq!(again, "it was recorded before");
    let followed = world.ax(&["follow", &session, "--until-idle"]);
    assert_eq!((followed.code, followed.out.as_str()), (0, "> go\npaid it is\n"), "{followed:?}");
    server.kill();
}

#[test]
fn a_timer_that_came_due_while_nothing_ran_fires_late_and_says_so() {
    let world = World::new();
    let script = r#"
        now=$(($(date +%s) * 1000))
        printf '{"type":"sleep","key":"z","due_ms":%s}\n' $((now + 1200))
        wait_for fired
        say "awake"
        finish
    "#;
    world.agent("sleeps", "jsonl", script, "{parkAfter: 10ms}");
    let run = world.start(&["run", "-a", "sleeps", "-s", "nap", "go"]);
    wait("the session", || world.ax(&["session", "show", "nap"]).code == 0);
    world.wait_state("nap", "waiting_timer");
    run.signal(Signal::TERM);
    assert_eq!(run.end().code, 130);
    let due = world.json(&["session", "show", "nap"])[0]["status"]["dueAtMillis"].clone();
    let due: u128 = due.as_str().unwrap().parse().unwrap();
    // A timer is late when it is so for 2 s: nothing can be waited for but the time itself.
    wait("the timer to be late", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_millis() > due + 2_100
    });
    let followed = world.ax(&["follow", "nap", "--until-idle"]);
    assert_eq!((followed.code, followed.out.as_str()), (0, "> go\nawake\n"), "{followed:?}");
    assert!(followed.err.contains("fired late"), "{followed:?}");
}

#[test]
fn a_step_of_unknown_outcome_is_not_repeated_but_asked_about() {
    let world = World::new();
    let script = r#"
        here=$AX_WORKSPACE/../../../..
        printf '{"type":"step_begin","key":"c","kind":"tool","name":"charge","effect":"once"}\n'
        while :; do
            wait_for_any
            case $line in
                *'"type":"granted"'*)
                    echo charged >> "$here/effects"
                    touch "$here/began"
                    sleep 60 ;;
                *'"type":"recorded"'*) break ;;
            esac
        done
        say "charged"
        finish
    "#;
    let any = "wait_for_any() { IFS= read -r line || exit 0; }\n";
    world.agent("pays", "jsonl", &format!("{any}{script}"), "");
    let server = world.serve();
    let session = world.ok(&["run", "-a", "pays", "--detach", "go"]);
    world.wait_file("began");
    server.kill();
    let followed = world.ax(&["follow", &session, "--until-idle"]);
    assert_eq!(followed.code, 5, "{followed:?}");
    assert!(followed.err.contains("--choose completed | retry | failed"), "{followed:?}");
    world.ok(&["answer", &session, "--choose", "completed", "--reason", "\"paid\""]);
    let followed = world.ax(&["follow", &session, "--until-idle"]);
    assert!(followed.out.ends_with("charged\n"), "{followed:?}");
    assert_eq!(std::fs::read_to_string(world.path("effects")).unwrap(), "charged\n");
}

/// Asks, and says what happened when nobody answered.
const ASKS_IN_VAIN: &str = r#"
    printf '{"type":"ask","key":"q","kind":"text","prompt":"Who?","expires_ms":3000}\n'
    wait_for expired
    say "nobody"
    finish
"#;

#[test]
fn a_server_that_leaves_when_it_is_idle_stays_for_a_question_that_expires() {
    let world = World::new();
    world.agent("asks", "jsonl", ASKS_IN_VAIN, "{parkAfter: 10ms}");
    let ran = world.ax(&["run", "-a", "asks", "-s", "who", "go"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    let server = world.start(&["serve", "--idle-exit", "0"]);
    assert_eq!(server.end().code, 0);
    let followed = world.ax(&["follow", "who", "--until-idle"]);
    assert_eq!((followed.code, followed.out.as_str()), (0, "> go\nnobody\n"), "{followed:?}");
}
