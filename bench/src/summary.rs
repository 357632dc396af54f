//! Throughput and percentiles of what was measured.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::drive::Sample;

/// Digits to which latencies are exact.
const DIGITS: u8 = 3;

/// Latencies of some operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// The median.
    pub p50: Duration,
    /// 99 of 100 were no longer than this.
    pub p99: Duration,
    /// 999 of 1000 were no longer than this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// Of these; all zero if there are none.
    #[must_use]
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        // Three digits are what it can do.
        let Ok(mut histogram) = Histogram::<u64>::new(DIGITS) else {
            return Self::default();
        };
        let mut max = 0;
        for sample in samples {
            max = max.max(sample.took_us);
            // It grows as far as 32 bits ask for.
            let _ = histogram.record(u64::from(sample.took_us));
        }
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile: f64| {
            // The histogram answers with the top of a bucket, which may lie above the longest.
            let value = histogram.value_at_quantile(quantile).min(u64::from(max));
            Duration::from_micros(value)
        };
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(u64::from(max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(took_us: impl IntoIterator<Item = u32>) -> Vec<Sample> {
        let sample = |took_us| Sample {
            ended_ms: 0,
            took_us,
        };
        took_us.into_iter().map(sample).collect()
    }

    fn close(found: Duration, micros: u64) -> bool {
        let micros = Duration::from_micros(micros);
        found.abs_diff(micros) <= micros / 1000 + Duration::from_micros(1)
    }

    #[test]
    fn percentiles_are_of_all_samples() {
        let latency = Latency::of(&samples((1..=100_000).rev()));
        assert_eq!(latency.count, 100_000);
        assert!(close(latency.p50, 50_000), "{latency:?}");
        assert!(close(latency.p99, 99_000), "{latency:?}");
        assert!(close(latency.p999, 99_900), "{latency:?}");
        assert_eq!(latency.max, Duration::from_micros(100_000));
    }

    #[test]
    fn none_and_one_have_percentiles_too() {
        assert_eq!(Latency::of(&[]), Latency::default());
        let latency = Latency::of(&samples([4_000_000_001]));
        let longest = Duration::from_micros(4_000_000_001);
        assert_eq!((latency.count, latency.max), (1, longest));
        assert!(latency.p50 <= latency.max && close(latency.p50, 4_000_000_001));
    }
}
