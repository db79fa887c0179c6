//! Why no endpoint could be picked. Either way the call never left the process.

use std::error::Error as StdError;
use std::fmt;

use chassis_core::Error;
use chassis_resilience::CircuitOpen;

use crate::Target;

/// Nobody serves the target, as far as discovery knows.
#[derive(Debug)]
pub struct NoEndpoints {
    /// Who was looked for.
    pub target: Target,
}

impl fmt::Display for NoEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no endpoint is known for {}", self.target)
    }
}

impl StdError for NoEndpoints {}

impl From<NoEndpoints> for Error {
    fn from(error: NoEndpoints) -> Error {
        Error::unavailable("NO_ENDPOINTS", "a service that is needed is not there")
            .with_source(error)
            .not_sent()
    }
}

/// Every endpoint's circuit is open.
#[derive(Debug)]
pub struct AllOpen {
    /// Who was looked for.
    pub target: Target,
    /// When the first circuit lets a trial call through.
    pub circuit: CircuitOpen,
}

impl fmt::Display for AllOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, retry_in) = (&self.target, self.circuit.retry_in);
        write!(f, "every circuit to {target} is open, next trial in {retry_in:?}")
    }
}

impl StdError for AllOpen {
    // So that it is known as a refusal of our own, which is not to be retried.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.circuit)
    }
}

impl From<AllOpen> for Error {
    fn from(error: AllOpen) -> Error {
        Error::unavailable("CIRCUIT_OPEN", "a service that is needed keeps failing")
            .with_retry_after(error.circuit.retry_in)
            .with_source(error)
            .not_sent()
    }
}

/// Endpoints are known, and no connection can be made to any of them.
#[derive(Debug)]
pub struct Unreachable {
    /// Who was looked for.
    pub target: Target,
    /// How many endpoints are known.
    pub endpoints: usize,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, endpoints) = (&self.target, self.endpoints);
        write!(f, "none of the {endpoints} endpoints of {target} can be connected to")
    }
}

impl StdError for Unreachable {}

impl From<Unreachable> for Error {
    fn from(error: Unreachable) -> Error {
        Error::unavailable("UNREACHABLE", "a service that is needed cannot be reached")
            .with_source(error)
            .not_sent()
    }
}

/// Whether an error, or one of its sources, says that the call never left this
/// process, so that repeating it is safe.
pub fn provably_not_sent(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<NoEndpoints>()
            || error.is::<AllOpen>()
            || error.is::<Unreachable>()
            || error.downcast_ref::<Error>().is_some_and(Error::was_not_sent)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_never_left_says_so_through_every_wrapping() {
        let target = Target::new("greeter", "grpc");
        let open = AllOpen {
            target: target.clone(),
            circuit: CircuitOpen { retry_in: Duration::from_secs(3) },
        };
        let error = Error::from(open);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        assert!(provably_not_sent(&error));
        let away = Unreachable { target: target.clone(), endpoints: 2 };
        assert!(provably_not_sent(&away) && Error::from(away).was_not_sent());
        assert!(provably_not_sent(&Error::internal(NoEndpoints { target })));
        assert!(!provably_not_sent(&Error::unavailable("DOWN", "down")));
    }
}
