//! As much of the engine as a harness notices: it records, answers, and starts attempts again.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use super::{Rig, Running};
use ax_core::id::{AttemptId, Seq};
use ax_core::session::{
    Answer, BlockId, Body, Digest, EffectClass, Frame, PartKind, StepKey, StepKind, Usage,
};
use ax_harness::{AskResult, Asked, Exit, JournalEntry, JournalKind, Launch, Launcher, Told};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, Debug)]
struct Begun {
    kind: StepKind,
    name: String,
    effect: EffectClass,
    digest: Digest,
    asked: Option<Box<Asked>>,
}

/// When the attempt is killed: at which frame, and whether that frame was recorded before.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    pub at: usize,
    pub recorded: bool,
}

/// A session with one execution.
pub struct Session {
    launcher: Arc<dyn Launcher>,
    launch: Launch,
    pub journal: Vec<JournalEntry>,
    /// Everything that was recorded.
    pub frames: Vec<Frame>,
    pub usage: Usage,
    /// What persons say, one after the other, to what they are asked.
    pub answers: VecDeque<Answer>,
    /// `once` steps of unknown outcome.
    pub unknown: Vec<StepKey>,
    open: BTreeMap<StepKey, Begun>,
    streamed: BTreeMap<BlockId, String>,
    attempt: u32,
}

fn body(body: &Body) -> String {
    match body {
        Body::Text(text) => text.clone(),
        Body::Blob(_) => panic!("a harness makes no blobs"),
    }
}

impl Session {
    pub fn new(rig: &Rig, launcher: &Arc<dyn Launcher>, harness: Value) -> Self {
        Self::of(launcher, rig.launch(harness))
    }

    pub fn of(launcher: &Arc<dyn Launcher>, launch: Launch) -> Self {
        Self {
            launcher: Arc::clone(launcher),
            launch,
            journal: Vec::new(),
            frames: Vec::new(),
            usage: Usage::default(),
            answers: VecDeque::new(),
            unknown: Vec::new(),
            open: BTreeMap::new(),
            streamed: BTreeMap::new(),
            attempt: 0,
        }
    }

    /// Runs the next attempt; returns how it ended, `None` if it was killed.
    pub async fn attempt(&mut self, kill: Option<Kill>) -> Option<Exit> {
        self.attempt += 1;
        self.streamed.clear();
        let mut launch = self.launch.clone();
        launch.attempt = AttemptId(self.attempt);
        launch.journal = self.journal.clone();
        let mut running = Running::start(&self.launcher, launch);
        let mut count = 0;
        while let Some(frame) = running.frames.recv().await {
            count += 1;
            let now = kill.filter(|kill| kill.at == count);
            if now.is_none_or(|kill| kill.recorded) {
                let told = self.record(frame);
                if let (Some(told), None) = (told, now) {
                    running.told.send(told).await.ok();
                }
            }
            if now.is_some() {
                running.kill.cancel();
                // What was its last word anyway may have been said before the kill.
                if let Exit::Gone(failure) = running.exit_unheard().await {
                    assert_eq!(failure.code, "killed");
                }
                self.lose();
                return None;
            }
        }
        Some(running.exit().await)
    }

    fn record(&mut self, frame: Frame) -> Option<Told> {
        self.frames.push(frame.clone());
        let seq = Seq(self.frames.len() as u64);
        let (key, kind) = match frame {
            Frame::StepBegin { step, kind, name, effect, digest, request, prefix, .. } => {
                let asked = request.as_ref().map(body).zip(prefix);
                let asked = asked.map(|(request, prefix)| Box::new(Asked { request, prefix }));
                let begun = Begun { kind, name, effect, digest, asked };
                assert!(self.open.insert(step.clone(), begun).is_none(), "{step} is open");
                return (effect == EffectClass::Once).then_some(Told::Granted { step });
            }
            Frame::Delta { block, part: PartKind::Text, text } => {
                self.streamed.entry(block).or_default().push_str(&text);
                return None;
            }
            Frame::StepEnd { step, result, usage } => {
                let Begun { kind, name, effect, digest, asked } =
                    self.open.remove(&step).expect("a step begins before it ends");
                self.usage.add(&usage);
                let result = result.map(|result| body(&result));
                (step, JournalKind::Step { kind, name, effect, digest, asked, result })
            }
            Frame::Output { block, key: Some(key), parts } => {
                let streamed = block.and_then(|block| self.streamed.remove(&block));
                let mut text = streamed.unwrap_or_default();
                parts.iter().for_each(|part| text.push_str(&body(&part.body)));
                (key, JournalKind::Output(text))
            }
            Frame::Note { key: Some(key), name, .. } => {
                if let Some(before) = self.journal.iter().find(|entry| entry.key == key) {
                    let before = Some(before.clone());
                    return Some(Told::Recorded { key, seq, before });
                }
                (key, JournalKind::Note { name })
            }
            Frame::Ask { key, .. } => {
                let result = AskResult::Answered(self.answers.pop_front()?);
                let kind = JournalKind::Ask(Some(result.clone()));
                self.journal.push(JournalEntry { key: key.clone(), seq, kind });
                return Some(Told::Answered { key, result });
            }
            _ => return None,
        };
        assert!(self.journal.iter().all(|entry| entry.key != key), "{key} is recorded already");
        self.journal.push(JournalEntry { key: key.clone(), seq, kind });
        Some(Told::Recorded { key, seq, before: None })
    }

    /// The attempt was lost: a person says of `once` steps that they were carried out.
    fn lose(&mut self) {
        for (key, begun) in std::mem::take(&mut self.open) {
            let Begun { kind, name, effect, digest, asked } = begun;
            if effect == EffectClass::Once {
                let result = Ok("null".to_owned());
                let kind = JournalKind::Step { kind, name, effect, digest, asked, result };
                self.unknown.push(key.clone());
                self.journal.push(JournalEntry { key, seq: Seq(0), kind });
            }
        }
    }

    /// Everything that was said in outputs.
    pub fn said(&self) -> Vec<String> {
        let texts = self.journal.iter().filter_map(|entry| match &entry.kind {
            JournalKind::Output(text) => Some(text.clone()),
            _ => None,
        });
        texts.collect()
    }

    /// What a step returned.
    pub fn result(&self, key: &str) -> Value {
        let entry = self.journal.iter().find(|entry| entry.key.as_str() == key);
        match &entry.expect("the step is recorded").kind {
            JournalKind::Step { result: Ok(json), .. } => serde_json::from_str(json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub fn failure(&self) -> (String, String, bool) {
        match self.frames.last() {
            Some(Frame::Fail { failure, retry }) => {
                (failure.code.clone(), failure.message.clone(), *retry)
            }
            other => panic!("{other:?} is not a failure"),
        }
    }
}
