//! One session: its executions, its single writer and its log positions.

mod event;
mod input;
mod value;

pub use event::{AgentRef, Event, Kind, LostReason, Outcome};
pub use input::{Accepted, Caller, Effect, Frame, Input, Refusal, Reply, Request, Stop};
pub use value::{
    Actor, Answer, AskKind, BlobRef, BlockId, Body, Budget, Digest, EffectClass, Failure,
    IdempotencyKey, Limits, Part, PartKind, Prefix, Retry, StepKey, StepKind, SubmitPolicy, Usage,
};
