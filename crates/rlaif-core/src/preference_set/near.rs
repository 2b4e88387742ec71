//! Texts that are nearly the same, in time that grows with the texts and not with their pairs.
//!
//! MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", section 3.4) proposes
//! candidates, and [`crate::similarity`] decides, so that nothing is found that is not near. What is missed is held by
//! `recall_on_edited_texts`: below one in a hundred of texts with an edit in twenty characters, more where the edits are a tenth.
//!
//! A text is the set of its four-byte pieces. One permutation (Li, Owen & Zhang 2012, "One permutation hashing") gives the 48 minima, so
//! that each piece is hashed once; empty bins borrow from the next one that is not (Shrivastava & Li 2014, "Densifying one permutation
//! hashing via rotation"). Three minima make a band: a share J of common pieces is a candidate with 1 − (1 − J³)¹⁶, 88 % at J = ½.

use super::NEAR;
use crate::similarity::nearer_than;

/// Bytes of a piece.
const PIECE: usize = 4;
/// Minima that must agree together.
const ROWS: usize = 3;
/// Bands of them.
const BANDS: usize = 16;
const BINS: usize = ROWS * BANDS;
/// Texts of a bucket that others are compared with: keeps templates that fill one bucket from costing the square of their number.
const COMPARED: usize = 16;
/// Minima that near texts have in common, at least: below it no edit distance is computed. A tenth of edits, each of which breaks four
/// pieces of its own, leaves J = ½ and 24 minima; short texts have fewer pieces than bins, and more chance in it.
const COMMON: usize = 10;

type Signature = [u32; BINS];

/// For each text an earlier one that it is near to: [`crate::similarity::too_similar`] at [`NEAR`]. The texts must be normalised and all
/// different.
pub fn earlier_near(texts: &[String]) -> Vec<Option<u32>> {
    let signatures: Vec<Signature> = texts.iter().map(|text| signature(text)).collect();
    let mut near: Vec<Option<u32>> = vec![None; texts.len()];
    for_each_bucket(&signatures, |bucket| {
        let mut first: Vec<u32> = Vec::new();
        for &text in bucket {
            if near[text as usize].is_some() {
                continue;
            }
            let (this, its) = (&texts[text as usize], &signatures[text as usize]);
            let found = first.iter().find(|&&other| {
                agree(its, &signatures[other as usize]) >= COMMON
                    && nearer_than(this, &texts[other as usize], NEAR)
            });
            match found {
                Some(other) => near[text as usize] = Some(*other),
                None if first.len() < COMPARED => first.push(text),
                None => {}
            }
        }
    });
    near
}

/// For each of `held_out` one of `others` that it is near to, likewise.
pub fn near_among(held_out: &[String], others: &[String]) -> Vec<Option<u32>> {
    let n = held_out.len();
    let text = |index: u32| match (index as usize).checked_sub(n) {
        None => &held_out[index as usize],
        Some(other) => &others[other],
    };
    let signatures: Vec<Signature> = held_out.iter().chain(others).map(|text| signature(text)).collect();
    let mut near: Vec<Option<u32>> = vec![None; n];
    for_each_bucket(&signatures, |bucket| {
        // Buckets are in order, so that what is held out stands first.
        let (ours, theirs) = bucket.split_at(bucket.partition_point(|index| (*index as usize) < n));
        for &one in ours {
            if near[one as usize].is_some() {
                continue;
            }
            let is_near = |&&other: &&u32| {
                agree(&signatures[one as usize], &signatures[other as usize]) >= COMMON
                    && nearer_than(text(one), text(other), NEAR)
            };
            let found = theirs.iter().take(COMPARED * COMPARED).find(is_near);
            near[one as usize] = found.map(|other| other - n as u32);
        }
    });
    near
}

/// The first text of each group: what a text is near to, and that one again, to the end. Two of a group may be farther from each other
/// than [`NEAR`]; each is near to the next.
pub fn groups(near: &[Option<u32>]) -> Vec<u32> {
    let mut group: Vec<u32> = Vec::with_capacity(near.len());
    for (text, earlier) in near.iter().enumerate() {
        group.push(earlier.map_or(text as u32, |earlier| group[earlier as usize]));
    }
    group
}

/// Shows every two or more texts that agree in a band, in their order.
fn for_each_bucket(signatures: &[Signature], mut visit: impl FnMut(&[u32])) {
    let mut keyed: Vec<(u64, u32)> = Vec::with_capacity(signatures.len());
    let mut bucket = Vec::new();
    for band in 0..BANDS {
        keyed.clear();
        keyed.extend((0u32..).zip(signatures).map(|(index, signature)| {
            let rows = &signature[band * ROWS..(band + 1) * ROWS];
            (rows.iter().fold(0, |key, row| mix(key ^ u64::from(*row))), index)
        }));
        keyed.sort_unstable();
        for same in keyed.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            bucket.clear();
            bucket.extend(same.iter().map(|(_, index)| *index));
            visit(&bucket);
        }
    }
}

fn signature(text: &str) -> Signature {
    let mut minima: [Option<u32>; BINS] = [None; BINS];
    let mut put = |piece: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..piece.len()].copy_from_slice(piece);
        let hash = mix(u64::from_le_bytes(bytes));
        // The upper half chooses the bin, the lower half is compared.
        let bin = (((hash >> 32) * BINS as u64) >> 32) as usize;
        let low = hash as u32;
        minima[bin] = Some(minima[bin].map_or(low, |known| known.min(low)));
    };
    match text.as_bytes() {
        short if short.len() < PIECE => put(short),
        long => long.windows(PIECE).for_each(put),
    }
    std::array::from_fn(|bin| {
        let borrowed = (0..BINS).find_map(|step| Some((step, minima[(bin + step) % BINS]?)));
        // How far it was borrowed from is part of it, else empty bins of unlike texts would agree too often.
        borrowed.map_or(0, |(step, value)| value.wrapping_add((step as u32).wrapping_mul(0x9e37_79b9)))
    })
}

fn agree(a: &Signature, b: &Signature) -> usize {
    a.iter().zip(b).filter(|(a, b)| a == b).count()
}

/// The finalizer of SplitMix64, Steele, Lea & Flood 2014.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;
    use rand::RngExt;

    /// Words of three to eight letters, as many as it takes.
    fn text(index: u64, chars: usize) -> String {
        let mut random = seed::stream(5, "near/text", index);
        let mut text = String::new();
        while text.len() < chars {
            if !text.is_empty() {
                text.push(' ');
            }
            let letters = random.random_range(3..=8);
            text.extend((0..letters).map(|_| char::from(b'a' + random.random_range(0..26u8))));
        }
        text
    }

    /// The same with a share of its characters replaced, each at a place of its own.
    fn edited(text: &str, index: u64, share: f64) -> String {
        let mut random = seed::stream(5, "near/edit", index);
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..(share * bytes.len() as f64) as usize {
            let at = random.random_range(0..bytes.len());
            bytes[at] = b'0' + random.random_range(0..10u8);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn recall_on_edited_texts() {
        let n = 400;
        for (chars, share, least) in
            [(400, 0.02, 1.0), (400, 0.05, 0.99), (400, 0.09, 0.8), (120, 0.05, 0.97), (40, 0.05, 0.85)]
        {
            let originals: Vec<String> = (0..n).map(|i| text(i, chars)).collect();
            let copies = originals.iter().zip(0..).map(|(text, i)| edited(text, i, share));
            let all: Vec<String> = originals.iter().cloned().chain(copies).collect();
            let near = earlier_near(&all);
            assert!(near[..n as usize].iter().all(Option::is_none), "unlike texts are not near");
            let found = (0..n as usize).filter(|i| near[n as usize + i] == Some(*i as u32)).count();
            assert!(found as f64 >= least * n as f64, "{chars} {share}: {found} of {n}");
        }
    }

    #[test]
    fn what_is_found_is_near_and_the_first_of_its_group() {
        let template = |word: &str| format!("translate the following sentence into german, please: {word}");
        let texts = [
            template("the house is green"),
            template("my hovercraft is full of eels and so is yours"),
            template("the house is greem"),
            "unlike anything else".to_string(),
            template("the house is grees"),
        ];
        let near = earlier_near(&texts);
        assert_eq!(near, [None, None, Some(0), None, Some(0)]);
        assert_eq!(groups(&near), [0, 1, 0, 3, 0]);
    }

    #[test]
    fn held_out_texts_are_found_among_others() {
        let others: Vec<String> = (0..300).map(|i| text(i, 80)).collect();
        let held_out = [text(1000, 80), edited(&others[7], 7, 0.03), others[299].clone()];
        assert_eq!(near_among(&held_out, &others), [None, Some(7), Some(299)]);
        assert_eq!(near_among(&[], &others), []);
        assert_eq!(near_among(&held_out, &[]), [None, None, None]);
    }

    #[test]
    fn short_and_foreign_texts_are_compared_too() {
        let texts = [
            "",
            "a",
            "ab",
            "日本語のテキストです、これは長い文章です。",
            "日本語のテキストです、これは長い文章です!",
        ];
        let near = earlier_near(&texts.map(String::from));
        assert_eq!(near, [None, None, None, None, Some(3)]);
    }
}
