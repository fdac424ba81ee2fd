//! Many askers, one question.
//!
//! Invariants: at most one question per key is under way; it is asked by a task of its own, so that an asker who leaves
//! takes nothing from the others. An answer is given to those who asked before it came, and to nobody later.
//!
//! Failure: a question whose task died answers with none. Cancellation: of an asker, see above; a node that ends drops its
//! questions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use outport_core::net::client::{Progress, Steps};
use outport_core::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Questions under way; cheap to clone.
#[derive(Debug)]
pub struct Coalesce<K, V>(Arc<Inner<K, V>>);

/// Whether an asker's own question was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It was.
    Asked,
    /// Another's was under way.
    Joined,
}

type Answer<V> = watch::Receiver<Option<V>>;

#[derive(Debug)]
struct Inner<K, V> {
    tasks: Tasks,
    running: Mutex<HashMap<K, (Answer<V>, Progress)>>,
}

/// A question that is under way.
#[derive(Debug)]
pub struct Asking<V> {
    answer: Answer<V>,
    role: Role,
    progress: Progress,
}

/// Takes a question out when it is answered, or dead; not one that has followed it under the same key.
struct Running<K: Eq + Hash, V> {
    inner: Arc<Inner<K, V>>,
    key: K,
    answer: Answer<V>,
}

// === impl Coalesce ===

impl<K, V> Coalesce<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns one with no questions under way.
    pub fn new(tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            tasks,
            running: Mutex::default(),
        }))
    }

    /// Returns the answer of the question under way, or else asks it; none when it died.
    pub async fn ask<F>(&self, key: K, question: impl FnOnce() -> F) -> (Option<V>, Role)
    where
        F: Future<Output = V> + Send + 'static,
    {
        self.join(key, |_| question()).answer().await
    }

    /// Joins the question under way, or else asks it, and returns it.
    pub fn join<F>(&self, key: K, question: impl FnOnce(Progress) -> F) -> Asking<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.0.running.lock();
        if let Some((answer, progress)) = running.get(&key) {
            return Asking {
                answer: answer.clone(),
                role: Role::Joined,
                progress: progress.clone(),
            };
        }
        let (sender, answer) = watch::channel(None);
        let progress = Progress::new();
        running.insert(key.clone(), (answer.clone(), progress.clone()));
        let entry = Running {
            inner: Arc::clone(&self.0),
            key,
            answer: answer.clone(),
        };
        let question = question(progress.clone());
        let ending = self.0.tasks.token();
        drop(self.0.tasks.spawn("question", async move {
            // A node that ends does not wait for somebody who takes his time.
            let value = ending.run_until_cancelled_owned(question).await;
            drop(entry);
            if let Some(value) = value {
                sender.send_replace(Some(value));
            }
        }));
        Asking {
            answer,
            role: Role::Asked,
            progress,
        }
    }

    /// Lets nobody join the question under way any more: its answer may be older than what is known now.
    pub fn supersede(&self, key: &K) {
        self.0.running.lock().remove(key);
    }
}

impl<K, V> Clone for Coalesce<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash, V> Drop for Running<K, V> {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock();
        if running
            .get(&self.key)
            .is_some_and(|(answer, _)| answer.same_channel(&self.answer))
        {
            running.remove(&self.key);
        }
    }
}

// === impl Asking ===

impl<V: Clone> Asking<V> {
    /// Returns the answer; none when the question died.
    pub async fn answer(&mut self) -> (Option<V>, Role) {
        let value = self.answer.wait_for(Option::is_some).await.ok();
        (value.and_then(|value| value.clone()), self.role)
    }

    /// Returns how far the question has come.
    pub fn steps(&self) -> Steps {
        self.progress.steps()
    }

    /// Returns the answer if it is in before somebody has waited for `limit` since a time, and before any step towards it takes
    /// longer than what is left of `step` now.
    pub async fn answer_in_steps(
        &mut self,
        since: Instant,
        [step, limit]: [Duration; 2],
    ) -> Option<(Option<V>, Role)> {
        let end = since + limit;
        let step = step.saturating_sub(since.elapsed());
        let mut steps = self.progress.subscribe();
        let mut until = end.min(Instant::now() + step);
        loop {
            tokio::select! {
                biased;
                answer = self.answer() => return Some(answer),
                () = sleep_until(until) => return None,
                Ok(()) = steps.changed() => until = end.min(Instant::now() + step),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn askers_share_one_answer() {
        let coalesce = Coalesce::new(Tasks::new());
        let (sender, receiver) = oneshot::channel::<u32>();
        let first = coalesce.ask("key", || async { receiver.await.unwrap() });
        let second = coalesce.ask("key", || async { unreachable!("asked twice") });
        let other = coalesce.ask("other", || async { 2 });
        let release = async { sender.send(1).unwrap() };
        let (first, second, other, ()) = tokio::join!(first, second, other, release);
        assert_eq!(first, (Some(1), Role::Asked));
        assert_eq!(second, (Some(1), Role::Joined));
        assert_eq!(other, (Some(2), Role::Asked));
        let later = coalesce.ask("key", || async { 3 }).await;
        assert_eq!(later, (Some(3), Role::Asked));
    }

    #[tokio::test]
    async fn a_question_that_dies_answers_none() {
        let coalesce: Coalesce<_, u32> = Coalesce::new(Tasks::new());
        let died = coalesce.ask("key", || async { panic!("on purpose") }).await;
        assert_eq!(died, (None, Role::Asked));
        assert_eq!(coalesce.ask("key", || async { 3 }).await.0, Some(3));
    }

    #[tokio::test]
    async fn a_superseded_question_is_joined_no_more() {
        let coalesce = Coalesce::new(Tasks::new());
        let (sender, receiver) = oneshot::channel::<u32>();
        let first = coalesce.ask("key", || async { receiver.await.unwrap() });
        let second = async {
            coalesce.supersede(&"key");
            let second = coalesce.ask("key", || async { 2 }).await;
            sender.send(1).unwrap();
            second
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.0, second), (Some(1), (Some(2), Role::Asked)));
    }
}
