//! A reader that is broken on purpose: it takes decoded coordinates in a wrong order. A measurement that does not
//! notice it notices nothing.

/// The coordinate that is read in the place of each coordinate; the default reads correctly.
#[derive(Clone, Default)]
pub struct Misread(Option<Vec<usize>>);

impl Misread {
    pub fn of(d: usize) -> Misread {
        Misread(Some((0..d).map(|i| (37 * i + 11) % d).collect()))
    }

    /// Rows as this run reads them.
    pub fn read(&self, rows: Vec<f32>) -> Vec<f32> {
        match &self.0 {
            Some(from) => rows.chunks(from.len()).flat_map(|row| from.iter().map(|i| row[*i])).collect(),
            None => rows,
        }
    }

    /// Queries that meet correctly read keys as the given ones meet misread keys: q . read(k) = aim(q) . k.
    pub fn aim(&self, queries: &[f32]) -> Vec<f32> {
        let Some(from) = &self.0 else { return queries.to_vec() };
        let mut aimed = vec![0.0; queries.len()];
        for (aimed, row) in aimed.chunks_mut(from.len()).zip(queries.chunks(from.len())) {
            from.iter().zip(row).for_each(|(i, value)| aimed[*i] = *value);
        }
        aimed
    }
}
