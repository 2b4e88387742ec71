use super::{Row, check};
use rlaif_judge::Style;

const TABLE: &[Row] = &[
    ("[[A>>B]]", "first"),
    ("[[A>B]]", "first"),
    ("[[A=B]]", "tie"),
    ("[[B>A]]", "second"),
    ("[[B>>A]]", "second"),
    ("My final verdict is tie: [[A=B]]", "tie"),
    (
        "## My Answer\n…\n\n## Comparison\n…\n\n**My final verdict is: Assistant B is slightly better: [[B>A]]**",
        "second",
    ),
    ("Assistant A is significantly better: [[A>>B]].", "first"),
    ("[[A>>B]]\n\nHope this helps!", "first"),
    ("[[ A >> B ]]", "first"),
    ("[[a>b]]", "first"),
    ("[[b = a]]", "tie"),
    ("[[**B>A**]]", "second"),
    ("`[[B>A]]`", "second"),
    ("\"[[A>B]]\"", "first"),
    ("```\n[[B>>A]]\n```", "second"),
    ("> [[A>B]]", "first"),
    ("\\boxed{[[A>B]]}", "first"),
    ("\\[\\[B>A\\]\\]", "second"),
    ("［［Ａ＞＞Ｂ］］", "first"),
    ("[[A≫B]]", "first"),
    ("[[A\\gg B]]", "first"),
    ("[[A&gt;B]]", "first"),
    ("[[A&gt;&gt;B]]", "first"),
    ("[[B<A]]", "first"),
    ("[[A<<B]]", "second"),
    ("[[A>B]] and [[B<A]] say the same.", "first"),
    ("[[Assistant A >> Assistant B]]", "first"),
    ("最终：[[B>A]]", "second"),
    ("[[A>B]]. To repeat: [[A>B]]", "first"),
    ("If only style counted, [[A]]. My final verdict is [[B>A]].", "second"),
    ("<think>[[A>>B]] or [[B>>A]]</think>[[A=B]]", "tie"),
    ("hmm [[A>>B]]</think>[[B>A]]", "second"),
    ("Assistant A uses `<think>` marks. [[B>A]]", "second"),
    ("[[A>B]], I am not quite sure.", "first"),
    ("[[В>А]]", "second"), // Cyrillic letters
    // No verdict.
    ("[[A>B]] … on reflection [[B>A]]", "null"),
    ("[[A>>B]] or [[A>B]]", "null"),
    ("[[A>B]] but really [[A=B]]", "null"),
    ("First verdict: [[A>>B]]. So the final verdict is [[B>>A]]", "null"),
    ("Choose [[A>>B]], [[A>B]], [[A=B]], [[B>A]] or [[B>>A]].", "null"),
    ("[[A]]", "null"),
    ("[[A>>>B]]", "null"),
    ("[[A>C]]", "null"),
    ("[[A>A]]", "null"),
    ("[[A>>B]", "null"),
    ("[A>>B]", "null"),
    ("A>>B", "null"),
    ("My final verdict is [[A>", "null"),
    ("My final verdict is tie.", "null"),
    ("I'm sorry, I cannot help with that.", "null"),
    ("<think>[[A>>B]]", "null"),
    ("<think>[[A>>B]]</think>\n", "null"),
    ("", "null"),
];

#[test]
fn arena_texts() {
    check(Style::ArenaBrackets, TABLE);
}
