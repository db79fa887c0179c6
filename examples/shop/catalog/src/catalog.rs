//! The use cases: reads, the frequent one through a cache.

use std::sync::Arc;

use chassis::Result;
use chassis::core::{App, Counter, Error, Metrics, Probe};
use chassis::data::Db;
use chassis::discovery::{Discovery, Registration};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::config::{CacheConfig, Config};
use crate::domain::{Product, Sku};
use crate::{seed, store};

/// The most products that a list shows.
pub const MAX_PRODUCTS: i64 = 1_000;

/// Products and their prices.
#[derive(Clone)]
pub struct Catalog {
    db: Db,
    cache: Arc<ProductCache>,
    discovery: Discovery,
}

impl Catalog {
    /// Opens the database, brings its tables up to date and, where it is
    /// empty and the configuration says so, puts the first products in.
    ///
    /// # Errors
    /// Settings that cannot work, and those of the database.
    pub async fn connect(app: &App, config: &Config) -> Result<Catalog> {
        let discovery = Discovery::new(&config.discovery)?;
        let cache = Arc::new(ProductCache::new(&config.cache, app.metrics()));
        let db = Db::connect(&config.database).await?;
        let pool = db.clone();
        app.on_close("catalog-db", move || async move { pool.close().await });
        db.bind_metrics(app.metrics(), "catalog");
        db.migrate(&store::migrations()).await?;
        if config.seed {
            seed::fill(&db).await?;
        }
        Ok(Catalog { db, cache, discovery })
    }

    /// Asks the database whether it answers.
    pub fn db_probe(&self) -> impl Probe + use<> {
        self.db.probe()
    }

    /// Makes this service known to the others.
    pub fn registration(&self) -> Registration {
        self.discovery.registration()
    }

    /// One product, perhaps as it was up to the cache's age ago. Dropping the
    /// future is harmless.
    ///
    /// # Errors
    /// `PRODUCT_NOT_FOUND`, and those of the database.
    pub async fn product(&self, sku: &str) -> Result<Product> {
        let not_found = || {
            Error::not_found("PRODUCT_NOT_FOUND", "there is no such product")
                .with_detail("sku", sku)
        };
        // What is no sku is not looked for: no product has it as its key.
        let key = Sku::parse(sku).map_err(|_| not_found())?;
        if let Some(product) = self.cache.get(&key) {
            return Ok(product);
        }
        let product = store::product(&self.db, &key).await?.ok_or_else(not_found)?;
        self.cache.put(key, product.clone());
        Ok(product)
    }

    /// The products, ordered by sku, at most [`MAX_PRODUCTS`]. Dropping the
    /// future is harmless.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn products(&self) -> Result<Vec<Product>> {
        store::products(&self.db, MAX_PRODUCTS).await
    }
}

/// The skin of the cache: a lock, a clock and two counters.
struct ProductCache {
    entries: Mutex<Cache<Sku, Product>>,
    hits: Counter,
    misses: Counter,
}

impl ProductCache {
    fn new(config: &CacheConfig, metrics: &Metrics) -> ProductCache {
        let counter = |result| {
            metrics.counter("catalog_cache_reads", "Reads of the cache", &[("result", result)])
        };
        ProductCache {
            entries: Mutex::new(Cache::new(config.capacity, config.max_age)),
            hits: counter("hit"),
            misses: counter("miss"),
        }
    }

    fn get(&self, sku: &Sku) -> Option<Product> {
        let found = self.entries.lock().get(sku, Instant::now().into_std());
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.inc();
        found
    }

    fn put(&self, sku: Sku, product: Product) {
        self.entries.lock().put(sku, product, Instant::now().into_std());
    }
}
