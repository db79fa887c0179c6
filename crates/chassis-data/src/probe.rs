//! Says whether the database answers, and refreshes the pool's gauges on the way.

use chassis_core::{BoxFuture, Probe, Result};

use crate::{Backend, Db};

/// See [`Db::probe`].
pub(crate) struct DbProbe<B: Backend>(pub(crate) Db<B>);

impl<B: Backend> Probe for DbProbe<B> {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.0.fetch_optional("select 1", Vec::new()).await?;
            self.0.refresh_metrics();
            Ok(())
        })
    }
}
