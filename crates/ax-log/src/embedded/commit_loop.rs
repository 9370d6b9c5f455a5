//! The loops that commit: while the block of one is being written, the other makes the next.
//!
//! ```text
//! lead: take and decide requests while more come, encode, ───┐ the other loop leads
//!       take the next place                                  │
//!                                                            ▼
//!                                  write durably ─▶ wait for its turn ─▶ show ─▶ answer
//! ```
//!
//! Blocks are shown and answered in the order of their places, whichever is durable first, and what
//! a request is answered rests on nothing that is not durable. A failed write ends everything: the
//! blocks after it are refused, durable or not. At most [`super::BLOCKS_IN_FLIGHT_MAX`] blocks are
//! under way, as there are so many loops.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, mpsc};

use super::COMMIT_COUNT_MAX;
use super::committer::{Batch, Committer};
use super::request::{Reply, Request};
use super::rotate::wait_for_room;
use super::segment::Place;
use super::shared::Shared;
use super::spawn::Spawner;
use crate::types::LogFault;

/// How often the loop spins between two looks for requests that are just coming.
const GATHER_SPIN_COUNT: usize = 32;
/// After how many blocks in which nobody else was met one loop does the work alone: to wake the
/// other for each block would cost a lonely client more than it gains.
const LONELY_COUNT: u32 = 4;

/// What the commit loops have in common.
#[derive(Debug)]
pub(super) struct Commit {
    shared: Arc<Shared>,
    spawner: Arc<dyn Spawner>,
    /// Whoever holds it leads.
    lead: tokio::sync::Mutex<Lead>,
    committer: Mutex<Committer>,
    /// How many places have had their turn.
    over: AtomicU64,
    /// The newest block that is durable and shown.
    settled: AtomicU64,
    moved: Notify,
}

/// What belongs to the loop that leads.
#[derive(Debug)]
struct Lead {
    requests: mpsc::UnboundedReceiver<Request>,
    /// A request that was taken and did not fit.
    held: Option<Request>,
    /// How many places were taken.
    taken: u64,
    /// How many requests have the last of them.
    count_last: usize,
    /// How many blocks there were in a row in which nobody else was met.
    lonely: u32,
    closing: Option<Reply<(), LogFault>>,
    ended: bool,
}

/// The place of a batch in the order.
#[derive(Debug)]
struct Turn {
    number: u64,
    /// Where its block goes; `None` if it has none.
    place: Option<Place>,
}

impl Commit {
    pub(super) fn new(
        committer: Committer,
        spawner: &Arc<dyn Spawner>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        let lead = Lead {
            requests,
            held: None,
            taken: 0,
            count_last: 0,
            lonely: 0,
            closing: None,
            ended: false,
        };
        Self {
            shared: Arc::clone(&committer.shared),
            spawner: Arc::clone(spawner),
            lead: tokio::sync::Mutex::new(lead),
            over: AtomicU64::new(0),
            settled: AtomicU64::new(committer.writer.block_next - 1),
            committer: Mutex::new(committer),
            moved: Notify::new(),
        }
    }

    /// Serves requests until the log is closed or dropped. As many of these run as blocks may be
    /// under way.
    pub(super) async fn run(self: Arc<Self>) {
        let mut batch = Batch::new();
        let mut kept = None;
        loop {
            let mut lead = match kept.take() {
                Some(lead) => lead,
                None => self.lead.lock().await,
            };
            if lead.ended {
                return;
            }
            let count = self.gather(&mut lead, &mut batch).await;
            match self.place(&mut lead, &mut batch).await {
                Ok(turn) => {
                    kept = self.may_keep(lead, &turn, count);
                    let written = self.write(&turn, &mut batch).await;
                    // Before the answers: who asks again because of one of them was no company.
                    if let Some(lead) = &mut kept {
                        lead.meet();
                    }
                    self.finish(turn, written, &mut batch).await;
                }
                Err(fault) => {
                    // Whoever leads next is to find the states as if this had not been asked.
                    self.turn(lead.taken).await;
                    self.committer().refuse(&mut batch, &fault);
                    kept = Some(lead);
                }
            }
            if let Some(lead) = &mut kept
                && (lead.closing.is_some() || count == 0)
            {
                self.end(lead).await;
                return;
            }
        }
    }

    /// Returns how many sessions are in hand.
    pub(super) fn writable_count(&self) -> usize {
        self.committer().sessions.count()
    }

    fn committer(&self) -> MutexGuard<'_, Committer> {
        self.committer.lock().expect("no holder of the lock panics")
    }

    /// Takes requests for one block and decides them, while more keep coming. Returns how many they
    /// were; none if nobody will ask any more.
    ///
    /// Those who were answered together ask again one after the other, within some microseconds:
    /// were the first taken alone, the rest would wait for its write. This waits for no clock and
    /// for nobody in particular; where nothing more comes it costs about a microsecond. While
    /// another block is being written, one with as many requests as that has is enough: then there
    /// are always two halves under way.
    async fn gather(&self, lead: &mut Lead, batch: &mut Batch) -> usize {
        if lead.held.is_none() {
            lead.held = lead.requests.recv().await;
        }
        let mut count = 0;
        while lead.is_asked() {
            let full = self.decide(lead, batch, &mut count);
            let halves = count >= lead.count_last && self.over.load(Ordering::Acquire) < lead.taken;
            if full || halves {
                break;
            }
            for _ in 0..GATHER_SPIN_COUNT {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
        }
        count
    }

    /// Decides the requests that are there. Says whether the block takes no more.
    fn decide(&self, lead: &mut Lead, batch: &mut Batch, count: &mut usize) -> bool {
        let mut committer = self.committer();
        std::mem::swap(&mut committer.batch, batch);
        let mut full = false;
        while !full && let Some(request) = lead.next() {
            if !committer.has_room(&request) {
                lead.held = Some(request);
                full = true;
                break;
            }
            *count += 1;
            full = *count == COMMIT_COUNT_MAX;
            if let Request::Close(reply) = request {
                lead.closing = Some(reply);
                full = true;
            } else {
                committer.take(request);
            }
        }
        std::mem::swap(&mut committer.batch, batch);
        full
    }

    /// Takes a place in the order, and one in a segment if there is a block.
    async fn place(&self, lead: &mut Lead, batch: &mut Batch) -> Result<Turn, LogFault> {
        let number = lead.taken;
        if batch.block.is_empty() {
            lead.taken += 1;
            return Ok(Turn { number, place: None });
        }
        if let Err(fault) = self.make_room(lead, batch.block.pages_bytes()).await {
            self.committer().seal(batch, None);
            return Err(fault);
        }
        let settled = self.settled.load(Ordering::Acquire);
        let place = self.committer().seal(batch, Some(settled));
        lead.taken += 1;
        Ok(Turn { number, place })
    }

    /// Sees that there is a place for a block of so many bytes.
    async fn make_room(&self, lead: &Lead, need: u64) -> Result<(), LogFault> {
        if let Some(fault) = self.shared.fault() {
            return Err(fault);
        }
        if self.committer().has_place(need) {
            return Ok(());
        }
        // A segment ends when all its blocks are durable and shown.
        self.turn(lead.taken).await;
        if self.committer().writer.offset > 0 {
            wait_for_room(&self.shared).await?;
        }
        self.committer().rotate(need)
    }

    /// Keeps the lead if there is nobody else to serve; else another loop takes over.
    fn may_keep<'a>(
        &self,
        mut lead: tokio::sync::MutexGuard<'a, Lead>,
        turn: &Turn,
        count: usize,
    ) -> Option<tokio::sync::MutexGuard<'a, Lead>> {
        let served = !lead.is_asked();
        lead.count_last = count;
        let alone = count <= 1 && served && self.over.load(Ordering::Acquire) == turn.number;
        lead.lonely = if alone { lead.lonely.saturating_add(1) } else { 0 };
        (lead.lonely > LONELY_COUNT || lead.closing.is_some() || count == 0).then_some(lead)
    }

    async fn write(&self, turn: &Turn, batch: &mut Batch) -> Result<(), LogFault> {
        let Some(place) = &turn.place else { return Ok(()) };
        if let Some(interlude) = self.spawner.interlude() {
            interlude.await;
        }
        let written = batch.block.write(place);
        let failed = |error| self.shared.poison("writing a segment failed", &error);
        let bytes = written.map_err(failed)?;
        self.shared.committed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until all places before one have had their turn.
    async fn turn(&self, number: u64) {
        loop {
            let moved = self.moved.notified();
            if self.over.load(Ordering::Acquire) == number {
                return;
            }
            moved.await;
        }
    }

    /// Shows a batch and answers, in its turn.
    async fn finish(&self, turn: Turn, written: Result<(), LogFault>, batch: &mut Batch) {
        self.turn(turn.number).await;
        let mut committer = self.committer();
        let failed = committer.failed.clone().map_or(written, Err);
        match failed {
            Ok(()) => {
                if let Some(place) = &turn.place {
                    committer.show(batch);
                    self.settled.store(place.block, Ordering::Release);
                }
            }
            Err(fault) => {
                committer.refuse(batch, &fault);
                committer.failed = Some(fault);
            }
        }
        drop(committer);
        for done in batch.answers() {
            if let Some((key, epoch)) = done.tell() {
                self.committer().release(&key, epoch);
            }
        }
        self.over.store(turn.number + 1, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Ends the loops, when everything that has a place has had its turn.
    async fn end(&self, lead: &mut Lead) {
        self.turn(lead.taken).await;
        lead.ended = true;
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(reply) = lead.closing.take() {
            self.shared.close();
            lead.requests.close();
            while let Some(request) = lead.next() {
                request.refuse(LogFault::Closed);
            }
            drop(reply.send(Ok(())));
        }
    }
}

impl Lead {
    fn is_asked(&self) -> bool {
        self.held.is_some() || !self.requests.is_empty()
    }

    fn next(&mut self) -> Option<Request> {
        self.held.take().or_else(|| self.requests.try_recv().ok())
    }

    /// Notes whether somebody came while a block was being written.
    fn meet(&mut self) {
        if !self.requests.is_empty() {
            self.lonely = 0;
        }
    }
}
