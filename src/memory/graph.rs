//! Which of many centroids does a query score highest? A graph (HNSW, arXiv 1603.09320, by the crate
//! `hnsw_rs`) finds most of them without looking at all.

use hnsw_rs::anndists::dist::distances::Distance;
use hnsw_rs::hnsw::Hnsw;

use super::lists::dot;

/// Neighbours of a point in the graph; twice as many on its lowest floor.
const NEIGHBOURS: usize = 12;
/// Points looked at to find the neighbours of a new one.
const SEARCHED_TO_BUILD: usize = 96;
/// Floors of the graph at most.
const FLOORS: usize = 16;

/// Centroids of one layer and KV head. Never changed: a larger one takes its place.
pub struct Graph {
    hnsw: Hnsw<'static, f32, Products>,
    mean: Vec<f32>,
    longest: f32,
}

/// Minus the product, plus what keeps that positive. Not a distance, and better here than one: points
/// are next to those with which their products are large, so that the long ones, which most queries
/// want, are next to all (ip-NSW, Morozov and Babenko, NeurIPS 2018).
#[derive(Clone, Copy, Debug)]
struct Products {
    largest: f32,
}

impl Distance<f32> for Products {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (self.largest - dot(a, b)).max(0.0)
    }
}

impl Graph {
    /// A graph of centroids, `width` wide each, numbered in their order. Their mean is taken away
    /// first: it is most of a key, and moves all products with a query alike.
    pub fn new<'a>(width: usize, centroids: impl Iterator<Item = &'a [f32]> + Clone) -> Self {
        let n = centroids.clone().count();
        let mut mean = vec![0.0; width];
        for centroid in centroids.clone() {
            mean.iter_mut().zip(centroid).for_each(|(mean, x)| *mean += x / n as f32);
        }
        let from_mean = |centroid: &[f32]| -> Vec<f32> {
            centroid.iter().zip(&mean).map(|(x, mean)| x - mean).collect()
        };
        let points: Vec<Vec<f32>> = centroids.map(from_mean).collect();
        let longest = points.iter().map(|point| dot(point, point)).fold(0.0, f32::max).sqrt();
        let products = Products { largest: 2.0 * longest * longest };
        let hnsw = Hnsw::new(NEIGHBOURS, n, FLOORS, SEARCHED_TO_BUILD, products);
        for (i, point) in points.iter().enumerate() {
            hnsw.insert((point, i));
        }
        Self { hnsw, mean, longest }
    }

    /// Centroids that it has.
    pub fn len(&self) -> usize {
        self.hnsw.get_nb_point()
    }

    /// Calls `each` with those of the `n` centroids with the largest products with `query` that are
    /// found; `query` is scaled to be as long as they are.
    pub fn search(&self, query: &mut [f32], n: usize, mut each: impl FnMut(usize)) {
        let factor = self.longest / dot(query, query).sqrt().max(f32::MIN_POSITIVE);
        query.iter_mut().for_each(|x| *x *= factor);
        let n = n.min(self.len());
        self.hnsw.search(query, n, n).iter().for_each(|found| each(found.d_id));
    }

    /// Bytes that it takes, at most: a point with its coordinates, a table of floors, and neighbours,
    /// each counted by reference.
    pub fn bytes(&self) -> usize {
        Self::most_bytes(self.mean.len(), self.len())
    }

    /// The same of one of `n` centroids of `width`, before it is made.
    pub fn most_bytes(width: usize, n: usize) -> usize {
        let point = width * size_of::<f32>() + FLOORS * size_of::<Vec<u8>>() + 128;
        let neighbour = size_of::<usize>() + 4 * size_of::<usize>();
        n * (point + 2 * NEIGHBOURS * neighbour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of the best ten that are found, of centroids that `make` makes, over some queries.
    fn recall(make: impl Fn(&mut fastrand::Rng, usize) -> Vec<f32>) -> f32 {
        let (width, n, wanted) = (32, 1500, 10);
        let mut rng = fastrand::Rng::with_seed(8);
        let centroids: Vec<Vec<f32>> = (0..n).map(|i| make(&mut rng, i)).collect();
        let graph = Graph::new(width, centroids.iter().map(|c| &c[..]));
        assert_eq!(graph.len(), n);
        let mut n_found = 0;
        for _ in 0..40 {
            let mut query = make(&mut rng, 0);
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| {
                dot(&query, &centroids[*b]).total_cmp(&dot(&query, &centroids[*a]))
            });
            graph.search(&mut query, 2 * wanted, |i| {
                n_found += usize::from(order[..wanted].contains(&i))
            });
        }
        n_found as f32 / (40 * wanted) as f32
    }

    fn noise(rng: &mut fastrand::Rng, size: f32) -> Vec<f32> {
        (0..32).map(|_| size * (rng.f32() * 2.0 - 1.0)).collect()
    }

    #[test]
    fn the_best_are_found_among_clusters() {
        let found = recall(|rng, i| {
            let centre = noise(&mut fastrand::Rng::with_seed(i as u64 % 30), 1.0);
            centre.iter().zip(noise(rng, 0.3)).map(|(c, x)| c + x).collect()
        });
        assert!(found > 0.95, "{found}");
    }

    /// All far from the origin on one side, of very different lengths: what products are bad at.
    #[test]
    fn the_best_are_found_where_lengths_differ_and_a_mean_drowns_all() {
        let found = recall(|rng, i| {
            let size = if i % 50 == 0 { 3.0 } else { 0.2 + rng.f32() };
            noise(rng, size).iter().map(|x| x + 20.0).collect()
        });
        assert!(found > 0.9, "{found}");
    }
}
