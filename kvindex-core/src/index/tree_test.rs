//! Where chains part, looked for in every way.

use super::*;

#[test]
fn chains_part_wherever_they_part() {
    let block = |i: u64| SequenceHash(1000 + i);
    for borders in [vec![], vec![1], vec![4], vec![4, 5, 11], (1..20).collect::<Vec<u32>>()] {
        let mut run = Run { blocks: (0..20).map(block).collect(), ..Run::default() };
        run.holders.insert(0..20, OwnerSlot(0));
        for (border, owner) in borders.iter().zip(1..) {
            run.holders.insert(*border..20, OwnerSlot(owner));
        }
        assert_eq!(run.holders.segments().len(), borders.len() + 1);
        for (offset, parting, len) in
            (0..20).flat_map(|o| (0..24).flat_map(move |p| (1..24).map(move |n| (o, p, n))))
        {
            let query = |i: u64| if i < parting { block(offset + i) } else { SequenceHash(i) };
            let query: Vec<SequenceHash> = (0..len).map(query).collect();
            let expected = parting.min(len).min(20 - offset) as usize;
            assert_eq!(run.shared(offset as usize, &query), expected, "{borders:?} {offset} {parting} {len}");
        }
    }
}
