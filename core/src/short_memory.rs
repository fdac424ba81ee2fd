//! What is of use for a short time.

use std::hash::Hash;
use std::time::Duration;

use moka::sync::Cache;

/// The longest time that anything is remembered for: more than a thousand years would be refused.
const TIME_MAX: Duration = Duration::from_hours(24 * 365);

/// Returns what remembers each of up to `entries_max` for so long after it was last put; none when that is no time.
pub fn short_memory<K, V>(entries_max: u64, time: Duration) -> Option<Cache<K, V>>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let remember = || {
        Cache::builder()
            .max_capacity(entries_max)
            .time_to_live(time.min(TIME_MAX))
            .build()
    };
    (!time.is_zero()).then(remember)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_of_a_configuration_will_do() {
        assert!(short_memory::<u8, ()>(1, Duration::ZERO).is_none());
        for time in [Duration::from_millis(1), Duration::MAX] {
            let memory = short_memory(1, time).unwrap();
            memory.insert(1_u8, ());
        }
    }
}
