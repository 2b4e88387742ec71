//! Labels that cannot all be true: the same two responses preferred both ways, and cycles in what is preferred over what.

use super::{LabelledPair, Numbers};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Two responses of a prompt that were labelled more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relabelled {
    /// The prompt, by number.
    pub prompt: u32,
    /// Two of the labels, by place in the set: that contradict each other, where any do.
    pub labels: [usize; 2],
    /// Whether some prefer the one and some the other.
    pub contradict: bool,
    /// Whether one and the same source says both.
    pub within_source: bool,
}

/// What the labels of one prompt are worth as an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptOrder {
    /// The prompt, by number.
    pub prompt: u32,
    /// Three responses of which every two were compared, and no comparison came out even.
    pub triads: u64,
    /// Of these, A over B over C over A.
    pub cyclic: u64,
    /// Three labels, by place in the set, of one cyclic triad.
    pub example: Option<[usize; 3]>,
    /// Whether there are enough comparisons among some responses that a cycle could be: at least as many as responses.
    pub could_cycle: bool,
    /// Responses that lie on a cycle of any length: those in a strongly connected component with others.
    pub on_cycles: usize,
}

/// Pairs of responses with more than one label, in the order of their first one. A label of p = ½ prefers neither and is none.
pub fn relabelled(pairs: &[LabelledPair], numbers: &Numbers) -> Vec<Relabelled> {
    let mut order = Vec::new();
    let mut labels: HashMap<(u32, u32, u32), Vec<usize>> = HashMap::new();
    for (index, pair) in numbers.pairs.iter().enumerate() {
        if pairs[index].p > 0.5 && pair.chosen != pair.rejected {
            let key = (pair.prompt, pair.chosen.min(pair.rejected), pair.chosen.max(pair.rejected));
            let known = labels.entry(key).or_default();
            if known.is_empty() {
                order.push(key);
            }
            known.push(index);
        }
    }
    let of = |key: (u32, u32, u32)| {
        let labels = labels.get(&key).filter(|labels| labels.len() > 1)?;
        let chooses = |index: &usize| numbers.pairs[*index].chosen;
        let first = labels[0];
        let other = labels.iter().find(|index| chooses(index) != chooses(&first));
        let mut said: HashMap<&str, u32> = HashMap::new();
        let within_source = labels.iter().any(|index| {
            *said.entry(pairs[*index].source.as_str()).or_insert_with(|| chooses(index)) != chooses(index)
        });
        Some(Relabelled {
            prompt: key.0,
            labels: [first, other.copied().unwrap_or(labels[1])],
            contradict: other.is_some(),
            within_source,
        })
    };
    order.into_iter().filter_map(of).collect()
}

/// The order of each prompt's responses, by prompt. Labels of the same two responses are added up as p − ½; those that come out even
/// prefer neither.
pub fn orders(pairs: &[LabelledPair], numbers: &Numbers) -> Vec<PromptOrder> {
    let mut leads: BTreeMap<u32, Leads> = BTreeMap::new();
    for (index, pair) in numbers.pairs.iter().enumerate() {
        let lead = pairs[index].p - 0.5;
        let (key, lead) = match pair.chosen.cmp(&pair.rejected) {
            std::cmp::Ordering::Less => ((pair.chosen, pair.rejected), lead),
            std::cmp::Ordering::Greater => ((pair.rejected, pair.chosen), -lead),
            std::cmp::Ordering::Equal => continue,
        };
        leads.entry(pair.prompt).or_default().entry(key).or_insert((0.0, index)).0 += lead;
    }
    leads.into_iter().map(|(prompt, leads)| order(prompt, &leads)).collect()
}

/// For every two responses of a prompt, the first one's lead as the sum of p − ½, and a label of it.
type Leads = BTreeMap<(u32, u32), (f64, usize)>;

/// Who beats whom among the responses of one prompt, with a label of each comparison.
struct Graph {
    /// `beats[i][j]`: a label of it.
    beats: Vec<BTreeMap<usize, usize>>,
}

impl Graph {
    /// The others that each was compared with.
    fn neighbours(&self) -> Vec<Vec<usize>> {
        let mut neighbours = vec![Vec::new(); self.beats.len()];
        for (winner, beaten) in self.beats.iter().enumerate() {
            for &loser in beaten.keys() {
                neighbours[winner].push(loser);
                neighbours[loser].push(winner);
            }
        }
        neighbours
    }
}

fn order(prompt: u32, leads: &Leads) -> PromptOrder {
    let decided = || leads.iter().filter(|(_, (lead, _))| *lead != 0.0);
    let responses: BTreeSet<u32> = decided().flat_map(|((a, b), _)| [*a, *b]).collect();
    let place: HashMap<u32, usize> = responses.iter().copied().zip(0..).collect();
    let mut graph = Graph { beats: vec![BTreeMap::new(); responses.len()] };
    for ((a, b), (lead, label)) in decided() {
        let (winner, loser) = if *lead > 0.0 { (a, b) } else { (b, a) };
        graph.beats[place[winner]].insert(place[loser], *label);
    }
    let mut found = PromptOrder { prompt, ..PromptOrder::default() };
    count_triads(&graph, &mut found);
    found.could_cycle = could_cycle(&graph);
    found.on_cycles = components(&graph).iter().filter(|size| **size > 1).sum();
    found
}

/// Each triad once, by the neighbours that the two ends of a comparison share: at most the comparisons to the power of 3/2.
fn count_triads(graph: &Graph, found: &mut PromptOrder) {
    let mut later: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); graph.beats.len()];
    for (winner, beaten) in graph.beats.iter().enumerate() {
        for &loser in beaten.keys() {
            later[winner.min(loser)].insert(winner.max(loser));
        }
    }
    let beats = |a: usize, b: usize| graph.beats[a].get(&b).copied();
    for (i, neighbours) in later.iter().enumerate() {
        for &j in neighbours {
            for &k in neighbours.intersection(&later[j]) {
                found.triads += 1;
                let around = |a, b, c| Some([beats(a, b)?, beats(b, c)?, beats(c, a)?]);
                if let Some(labels) = around(i, j, k).or_else(|| around(i, k, j)) {
                    found.cyclic += 1;
                    found.example.get_or_insert(labels);
                }
            }
        }
    }
}

/// Whether some connected responses have at least as many comparisons as there are of them.
fn could_cycle(graph: &Graph) -> bool {
    let neighbours = graph.neighbours();
    let mut seen = vec![false; neighbours.len()];
    for start in 0..neighbours.len() {
        if seen[start] {
            continue;
        }
        let (mut nodes, mut wins, mut open) = (0, 0, vec![start]);
        seen[start] = true;
        while let Some(node) = open.pop() {
            (nodes, wins) = (nodes + 1, wins + graph.beats[node].len());
            for &next in &neighbours[node] {
                if !std::mem::replace(&mut seen[next], true) {
                    open.push(next);
                }
            }
        }
        if wins >= nodes {
            return true;
        }
    }
    false
}

/// Sizes of the strongly connected components, Tarjan 1972, without recursion.
fn components(graph: &Graph) -> Vec<usize> {
    const NEW: usize = usize::MAX;
    let n = graph.beats.len();
    let (mut index, mut low) = (vec![NEW; n], vec![0; n]);
    let (mut on_stack, mut stack, mut sizes, mut next) = (vec![false; n], Vec::new(), Vec::new(), 0);
    let losers: Vec<Vec<usize>> = graph.beats.iter().map(|beaten| beaten.keys().copied().collect()).collect();
    for start in 0..n {
        if index[start] != NEW {
            continue;
        }
        let mut calls = vec![(start, 0)];
        while let Some((node, at)) = calls.pop() {
            if at == 0 {
                (index[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            match losers[node].get(at) {
                Some(&loser) => {
                    calls.push((node, at + 1));
                    if index[loser] == NEW {
                        calls.push((loser, 0));
                    } else if on_stack[loser] {
                        low[node] = low[node].min(index[loser]);
                    }
                }
                None => {
                    if low[node] == index[node] {
                        let from = stack.iter().rposition(|it| *it == node).unwrap_or(0);
                        sizes.push(stack.len() - from);
                        stack.drain(from..).for_each(|member| on_stack[member] = false);
                    }
                    if let Some((parent, _)) = calls.last() {
                        low[*parent] = low[*parent].min(low[node]);
                    }
                }
            }
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;
    use crate::seed;
    use rand::RngExt;

    fn orders_of(set: &[LabelledPair]) -> Vec<PromptOrder> {
        orders(set, &Numbers::of(set))
    }

    #[test]
    fn a_cycle_of_three_is_told_with_its_labels() {
        let set = [
            pair("1", "p", "a", "b", "x"),
            pair("2", "p", "b", "c", "x"),
            pair("3", "p", "c", "a", "x"),
            pair("4", "p", "a", "d", "x"),
            pair("5", "q", "a", "b", "x"),
            pair("6", "q", "b", "c", "x"),
            pair("7", "q", "a", "c", "x"),
        ];
        let found = orders_of(&set);
        let [p, q] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((p.triads, p.cyclic, p.on_cycles, p.could_cycle), (1, 1, 3, true));
        assert_eq!(p.example, Some([0, 1, 2]));
        assert_eq!((q.triads, q.cyclic, q.on_cycles, q.could_cycle, q.example), (1, 0, 0, true, None));
    }

    #[test]
    fn a_longer_cycle_has_no_triad_and_is_found_all_the_same() {
        let set = [
            pair("1", "p", "a", "b", "x"),
            pair("2", "p", "b", "c", "x"),
            pair("3", "p", "c", "d", "x"),
            pair("4", "p", "d", "a", "x"),
        ];
        let found = orders_of(&set);
        assert_eq!((found[0].triads, found[0].on_cycles, found[0].could_cycle), (0, 4, true));
        let chain = orders_of(&set[..3]);
        assert_eq!((chain[0].on_cycles, chain[0].could_cycle), (0, false));
    }

    #[test]
    fn labels_of_one_comparison_are_added_up() {
        let soft = |id, chosen, rejected, p| LabelledPair { p, ..pair(id, "p", chosen, rejected, "x") };
        // b beats a by 0.4 − 0.1: the cycle stays; with as much the other way round it is even, and there is none.
        let cycle = [
            soft("1", "a", "b", 0.6),
            soft("2", "b", "a", 0.9),
            soft("3", "a", "c", 0.9),
            soft("4", "c", "b", 0.9),
        ];
        assert_eq!(orders_of(&cycle)[0].cyclic, 1);
        let even = [
            soft("1", "a", "b", 0.75),
            soft("2", "b", "a", 0.75),
            soft("3", "a", "c", 0.9),
            soft("4", "c", "b", 0.9),
        ];
        assert_eq!((orders_of(&even)[0].triads, orders_of(&even)[0].on_cycles), (0, 0));
    }

    /// A random tournament of n has C(n, 3) − Σ C(wins, 2) cyclic triads, Kendall & Babington Smith 1940.
    #[test]
    fn triads_are_counted_as_kendall_and_babington_smith() {
        for case in 0..20 {
            let mut random = seed::stream(3, "tournament", case);
            let n = random.random_range(3..12usize);
            let mut wins = vec![0u64; n];
            let mut set = Vec::new();
            for i in 0..n {
                for j in i + 1..n {
                    let (winner, loser) = if random.random_range(0..2) == 0 { (i, j) } else { (j, i) };
                    wins[winner] += 1;
                    set.push(pair("", "p", &format!("r{winner}"), &format!("r{loser}"), "x"));
                }
            }
            let n = n as u64;
            let transitive: u64 = wins.iter().map(|w| w * w.saturating_sub(1) / 2).sum();
            let found = &orders_of(&set)[0];
            assert_eq!(found.triads, n * (n - 1) * (n - 2) / 6);
            assert_eq!(found.cyclic, found.triads - transitive);
            assert_eq!(found.cyclic > 0, found.on_cycles > 0, "a tournament with a cycle has one of three");
        }
    }

    #[test]
    fn contradictions_are_told_within_and_between_sources() {
        let set = [
            pair("1", "p", "a", "b", "x"),
            pair("2", "p", "B ", "a", "x"),
            pair("3", "q", "a", "b", "x"),
            pair("4", "q", "b", "a", "y"),
            pair("5", "r", "a", "b", "x"),
            pair("6", "r", "a", "b", "y"),
            pair("7", "s", "a", "b", "x"),
            LabelledPair { p: 0.5, ..pair("8", "s", "b", "a", "x") },
        ];
        let found = relabelled(&set, &Numbers::of(&set));
        let told: Vec<_> = found.iter().map(|it| (it.labels, it.contradict, it.within_source)).collect();
        assert_eq!(told, [([0, 1], true, true), ([2, 3], true, false), ([4, 5], false, false)]);
    }
}
