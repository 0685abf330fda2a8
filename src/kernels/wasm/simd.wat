;; What the host's matrix products and attention do most, four floats at a time. All places are byte offsets in the one
;; memory, at multiples of 4, and nothing checks them. Sums are added in an order that their length alone decides.
(module
  (memory (export "memory") 1)

  ;; e to the power of each: 2^n * e^r, as the portable header has it, with products that are rounded.
  (func $exp (param $x v128) (result v128)
    (local $n v128) (local $r v128) (local $sum v128) (local $half v128)
    (local.set $n
      (f32x4.nearest
        (f32x4.mul
          (f32x4.min (f32x4.max (local.get $x) (v128.const f32x4 -104 -104 -104 -104)) (v128.const f32x4 104 104 104 104))
          (v128.const f32x4 1.44269504 1.44269504 1.44269504 1.44269504))))
    (local.set $r
      (f32x4.sub
        (f32x4.sub
          (local.get $x)
          (f32x4.mul (local.get $n) (v128.const f32x4 0.693359375 0.693359375 0.693359375 0.693359375)))
        (f32x4.mul
          (local.get $n)
          (v128.const f32x4 -2.12194440e-4 -2.12194440e-4 -2.12194440e-4 -2.12194440e-4))))
    (local.set $sum (v128.const f32x4 1.98412698e-4 1.98412698e-4 1.98412698e-4 1.98412698e-4))
    (local.set $sum
      (f32x4.add
        (f32x4.mul (local.get $sum) (local.get $r))
        (v128.const f32x4 1.38888889e-3 1.38888889e-3 1.38888889e-3 1.38888889e-3)))
    (local.set $sum
      (f32x4.add
        (f32x4.mul (local.get $sum) (local.get $r))
        (v128.const f32x4 8.33333333e-3 8.33333333e-3 8.33333333e-3 8.33333333e-3)))
    (local.set $sum
      (f32x4.add
        (f32x4.mul (local.get $sum) (local.get $r))
        (v128.const f32x4 4.16666667e-2 4.16666667e-2 4.16666667e-2 4.16666667e-2)))
    (local.set $sum
      (f32x4.add
        (f32x4.mul (local.get $sum) (local.get $r))
        (v128.const f32x4 0.166666667 0.166666667 0.166666667 0.166666667)))
    (local.set $sum
      (f32x4.add (f32x4.mul (local.get $sum) (local.get $r)) (v128.const f32x4 0.5 0.5 0.5 0.5)))
    (local.set $sum
      (f32x4.add
        (f32x4.add
          (f32x4.mul (f32x4.mul (local.get $sum) (local.get $r)) (local.get $r))
          (local.get $r))
        (v128.const f32x4 1 1 1 1)))
    ;; In two steps: neither 2^150 nor 2^-150 is a float.
    (local.set $n (i32x4.trunc_sat_f32x4_s (local.get $n)))
    (local.set $half (i32x4.shr_s (local.get $n) (i32.const 1)))
    (local.set $sum
      (f32x4.mul
        (local.get $sum)
        (i32x4.shl (i32x4.add (local.get $half) (v128.const i32x4 127 127 127 127)) (i32.const 23))))
    (local.set $sum
      (f32x4.mul
        (local.get $sum)
        (i32x4.shl
          (i32x4.add (i32x4.sub (local.get $n) (local.get $half)) (v128.const i32x4 127 127 127 127))
          (i32.const 23))))
    ;; Far outside, where r is anything.
    (local.set $sum
      (v128.andnot (local.get $sum) (f32x4.lt (local.get $x) (v128.const f32x4 -104 -104 -104 -104))))
    (v128.bitselect
      (v128.const f32x4 inf inf inf inf)
      (local.get $sum)
      (f32x4.gt (local.get $x) (v128.const f32x4 89 89 89 89))))

  ;; The four lanes of each of four vectors, added: (0 + 2) + (1 + 3).
  (func $sums (param $a v128) (param $b v128) (param $c v128) (param $d v128) (result v128)
    (local.set $a
      (f32x4.add
        (i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23 (local.get $a) (local.get $b))
        (i8x16.shuffle 8 9 10 11 24 25 26 27 12 13 14 15 28 29 30 31 (local.get $a) (local.get $b))))
    (local.set $c
      (f32x4.add
        (i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23 (local.get $c) (local.get $d))
        (i8x16.shuffle 8 9 10 11 24 25 26 27 12 13 14 15 28 29 30 31 (local.get $c) (local.get $d))))
    (f32x4.add
      (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (local.get $a) (local.get $c))
      (i8x16.shuffle 8 9 10 11 12 13 14 15 24 25 26 27 28 29 30 31 (local.get $a) (local.get $c))))

  ;; Floats from BF16: `count`, a multiple of 8, from $from to $to.
  (func (export "widenBfloats") (param $from i32) (param $to i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $to) (i32.shl (local.get $count) (i32.const 2))))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $to) (local.get $end)))
        (v128.store (local.get $to) (i32x4.shl (v128.load16x4_u (local.get $from)) (i32.const 16)))
        (v128.store offset=16 (local.get $to) (i32x4.shl (v128.load16x4_u offset=8 (local.get $from)) (i32.const 16)))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (br $more))))

  ;; Four floats from F16: the magnitude times 2^112, but for infinities and NaNs.
  (func $halves (param $bits v128) (result v128)
    (local $magnitude v128)
    (local.set $magnitude
      (i32x4.shl
        (v128.and (local.get $bits) (v128.const i32x4 0x7fff 0x7fff 0x7fff 0x7fff))
        (i32.const 13)))
    (v128.or
      (i32x4.shl
        (v128.and (local.get $bits) (v128.const i32x4 0x8000 0x8000 0x8000 0x8000))
        (i32.const 16))
      (v128.bitselect
        (v128.or (local.get $magnitude) (v128.const i32x4 0x7f800000 0x7f800000 0x7f800000 0x7f800000))
        (f32x4.mul
          (local.get $magnitude)
          (v128.const i32x4 0x77800000 0x77800000 0x77800000 0x77800000))
        (i32x4.gt_s (local.get $magnitude) (v128.const i32x4 0xf7fffff 0xf7fffff 0xf7fffff 0xf7fffff)))))

  ;; The same from F16.
  (func (export "widenHalves") (param $from i32) (param $to i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $to) (i32.shl (local.get $count) (i32.const 2))))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $to) (local.get $end)))
        (v128.store (local.get $to) (call $halves (v128.load16x4_u (local.get $from))))
        (v128.store offset=16 (local.get $to) (call $halves (v128.load16x4_u offset=8 (local.get $from))))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (br $more))))

  ;; Products of $rows rows of x with $weights rows of w, a multiple of 4: out[row][weight]. Rows of x and w are $stride
  ;; bytes, a multiple of 32; those of out are $outStride bytes.
  (func (export "dots") (param $x i32) (param $rows i32) (param $w i32) (param $weights i32) (param $stride i32)
    (param $out i32) (param $outStride i32)
    (local $row i32) (local $at i32) (local $endX i32) (local $to i32)
    (local $p i32) (local $q i32) (local $a i32) (local $b i32) (local $c i32) (local $d i32)
    (local $xp v128) (local $xq v128) (local $y v128)
    (local $pa v128) (local $pb v128) (local $pc v128) (local $pd v128)
    (local $qa v128) (local $qb v128) (local $qc v128) (local $qd v128)
    (loop $quads
      (if (i32.eqz (local.get $weights)) (then (return)))
      (local.set $row (i32.const 0))
      (local.set $at (local.get $x))
      (local.set $to (local.get $out))
      (block $rowsDone
        (loop $pairs
          (br_if $rowsDone (i32.ge_u (local.get $row) (local.get $rows)))
          (local.set $p (local.get $at))
          (local.set $endX (i32.add (local.get $at) (local.get $stride)))
          ;; The last row of an odd number is taken twice.
          (local.set $q
            (select
              (local.get $endX)
              (local.get $at)
              (i32.lt_u (i32.add (local.get $row) (i32.const 1)) (local.get $rows))))
          (local.set $a (local.get $w))
          (local.set $b (i32.add (local.get $a) (local.get $stride)))
          (local.set $c (i32.add (local.get $b) (local.get $stride)))
          (local.set $d (i32.add (local.get $c) (local.get $stride)))
          (local.set $pa (v128.const i32x4 0 0 0 0))
          (local.set $pb (v128.const i32x4 0 0 0 0))
          (local.set $pc (v128.const i32x4 0 0 0 0))
          (local.set $pd (v128.const i32x4 0 0 0 0))
          (local.set $qa (v128.const i32x4 0 0 0 0))
          (local.set $qb (v128.const i32x4 0 0 0 0))
          (local.set $qc (v128.const i32x4 0 0 0 0))
          (local.set $qd (v128.const i32x4 0 0 0 0))
          (loop $products
            (local.set $xp (v128.load (local.get $p)))
            (local.set $xq (v128.load (local.get $q)))
            (local.set $y (v128.load (local.get $a)))
            (local.set $pa (f32x4.add (local.get $pa) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qa (f32x4.add (local.get $qa) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $y (v128.load (local.get $b)))
            (local.set $pb (f32x4.add (local.get $pb) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qb (f32x4.add (local.get $qb) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $y (v128.load (local.get $c)))
            (local.set $pc (f32x4.add (local.get $pc) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qc (f32x4.add (local.get $qc) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $y (v128.load (local.get $d)))
            (local.set $pd (f32x4.add (local.get $pd) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qd (f32x4.add (local.get $qd) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $xp (v128.load offset=16 (local.get $p)))
            (local.set $xq (v128.load offset=16 (local.get $q)))
            (local.set $y (v128.load offset=16 (local.get $a)))
            (local.set $pa (f32x4.add (local.get $pa) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qa (f32x4.add (local.get $qa) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $y (v128.load offset=16 (local.get $b)))
            (local.set $pb (f32x4.add (local.get $pb) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qb (f32x4.add (local.get $qb) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $y (v128.load offset=16 (local.get $c)))
            (local.set $pc (f32x4.add (local.get $pc) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qc (f32x4.add (local.get $qc) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $y (v128.load offset=16 (local.get $d)))
            (local.set $pd (f32x4.add (local.get $pd) (f32x4.mul (local.get $xp) (local.get $y))))
            (local.set $qd (f32x4.add (local.get $qd) (f32x4.mul (local.get $xq) (local.get $y))))
            (local.set $q (i32.add (local.get $q) (i32.const 32)))
            (local.set $a (i32.add (local.get $a) (i32.const 32)))
            (local.set $b (i32.add (local.get $b) (i32.const 32)))
            (local.set $c (i32.add (local.get $c) (i32.const 32)))
            (local.set $d (i32.add (local.get $d) (i32.const 32)))
            (br_if $products
              (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 32))) (local.get $endX))))
          (v128.store
            (local.get $to)
            (call $sums (local.get $pa) (local.get $pb) (local.get $pc) (local.get $pd)))
          (if (i32.lt_u (i32.add (local.get $row) (i32.const 1)) (local.get $rows))
            (then
              (v128.store
                (i32.add (local.get $to) (local.get $outStride))
                (call $sums (local.get $qa) (local.get $qb) (local.get $qc) (local.get $qd)))))
          (local.set $row (i32.add (local.get $row) (i32.const 2)))
          (local.set $at (i32.add (local.get $endX) (local.get $stride)))
          (local.set $to (i32.add (local.get $to) (i32.shl (local.get $outStride) (i32.const 1))))
          (br $pairs)))
      (local.set $weights (i32.sub (local.get $weights) (i32.const 4)))
      (local.set $w (i32.add (local.get $w) (i32.shl (local.get $stride) (i32.const 2))))
      (local.set $out (i32.add (local.get $out) (i32.const 16)))
      (br $quads)))

  ;; $gates[i] becomes silu($gates[i]) * $opened[i], for $count of them, a multiple of 4.
  (func (export "gate") (param $gates i32) (param $opened i32) (param $count i32)
    (local $end i32) (local $x v128)
    (local.set $end (i32.add (local.get $gates) (i32.shl (local.get $count) (i32.const 2))))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $gates) (local.get $end)))
        (local.set $x (v128.load (local.get $gates)))
        (v128.store
          (local.get $gates)
          (f32x4.mul
            (f32x4.div
              (local.get $x)
              (f32x4.add (v128.const f32x4 1 1 1 1) (call $exp (f32x4.neg (local.get $x)))))
            (v128.load (local.get $opened))))
        (local.set $gates (i32.add (local.get $gates) (i32.const 16)))
        (local.set $opened (i32.add (local.get $opened) (i32.const 16)))
        (br $more))))

  ;; Takes $count more positions of one head into its softmax. $scores: their products with the query, which become their
  ;; parts; there is room for 3 more. $state: the largest score so far, times $scale, and the total of the parts. $sums:
  ;; $headBytes of sums of values, a multiple of 32. $values: rows of $headBytes, $block positions in a row, and $skip
  ;; bytes before the next that many.
  (func (export "attend") (param $scores i32) (param $count i32) (param $scale f32) (param $state i32) (param $sums i32)
    (param $headBytes i32) (param $values i32) (param $block i32) (param $skip i32)
    (local $end i32) (local $at i32) (local $most f32) (local $keep v128) (local $v v128) (local $w v128)
    (local $total v128) (local $row i32) (local $left i32) (local $d i32)
    (local $a v128) (local $b v128) (local $c v128) (local $e v128)
    (local $f v128) (local $g v128) (local $h v128) (local $i v128)
    (local.set $end (i32.add (local.get $scores) (i32.shl (local.get $count) (i32.const 2))))
    (local.set $v (v128.const f32x4 -inf -inf -inf -inf))
    (local.set $w (f32x4.splat (local.get $scale)))
    (local.set $at (local.get $scores))
    (loop $scaled
      (v128.store (local.get $at) (f32x4.mul (v128.load (local.get $at)) (local.get $w)))
      (br_if $scaled (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (local.get $end))))
    ;; What is behind the last counts for nothing.
    (f32.store (local.get $end) (f32.const -inf))
    (f32.store offset=4 (local.get $end) (f32.const -inf))
    (f32.store offset=8 (local.get $end) (f32.const -inf))
    (local.set $at (local.get $scores))
    (loop $largest
      (local.set $v (f32x4.max (local.get $v) (v128.load (local.get $at))))
      (br_if $largest (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (local.get $end))))
    (local.set $most
      (f32.max
        (f32.max
          (f32.max (f32x4.extract_lane 0 (local.get $v)) (f32x4.extract_lane 1 (local.get $v)))
          (f32.max (f32x4.extract_lane 2 (local.get $v)) (f32x4.extract_lane 3 (local.get $v))))
        (f32.load (local.get $state))))
    (local.set $keep (call $exp (f32x4.splat (f32.sub (f32.load (local.get $state)) (local.get $most)))))
    (f32.store (local.get $state) (local.get $most))

    (local.set $v (f32x4.splat (local.get $most)))
    (local.set $at (local.get $scores))
    (loop $parts
      (local.set $w (call $exp (f32x4.sub (v128.load (local.get $at)) (local.get $v))))
      (v128.store (local.get $at) (local.get $w))
      (local.set $total (f32x4.add (local.get $total) (local.get $w)))
      (br_if $parts (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (local.get $end))))
    (f32.store offset=4
      (local.get $state)
      (f32.add
        (f32.mul (f32.load offset=4 (local.get $state)) (f32x4.extract_lane 0 (local.get $keep)))
        (f32.add
          (f32.add (f32x4.extract_lane 0 (local.get $total)) (f32x4.extract_lane 2 (local.get $total)))
          (f32.add (f32x4.extract_lane 1 (local.get $total)) (f32x4.extract_lane 3 (local.get $total))))))

    ;; 32 elements of the head at a time, then 8.
    (block $wideDone
      (loop $wide
        (br_if $wideDone (i32.gt_u (i32.add (local.get $d) (i32.const 128)) (local.get $headBytes)))
        (local.set $a (f32x4.mul (local.get $keep) (v128.load (local.get $sums))))
        (local.set $b (f32x4.mul (local.get $keep) (v128.load offset=16 (local.get $sums))))
        (local.set $c (f32x4.mul (local.get $keep) (v128.load offset=32 (local.get $sums))))
        (local.set $e (f32x4.mul (local.get $keep) (v128.load offset=48 (local.get $sums))))
        (local.set $f (f32x4.mul (local.get $keep) (v128.load offset=64 (local.get $sums))))
        (local.set $g (f32x4.mul (local.get $keep) (v128.load offset=80 (local.get $sums))))
        (local.set $h (f32x4.mul (local.get $keep) (v128.load offset=96 (local.get $sums))))
        (local.set $i (f32x4.mul (local.get $keep) (v128.load offset=112 (local.get $sums))))
        (local.set $at (local.get $scores))
        (local.set $row (i32.add (local.get $values) (local.get $d)))
        (local.set $left (local.get $block))
        (loop $positions
          (local.set $w (v128.load32_splat (local.get $at)))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $w) (v128.load (local.get $row)))))
          (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $w) (v128.load offset=16 (local.get $row)))))
          (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $w) (v128.load offset=32 (local.get $row)))))
          (local.set $e (f32x4.add (local.get $e) (f32x4.mul (local.get $w) (v128.load offset=48 (local.get $row)))))
          (local.set $f (f32x4.add (local.get $f) (f32x4.mul (local.get $w) (v128.load offset=64 (local.get $row)))))
          (local.set $g (f32x4.add (local.get $g) (f32x4.mul (local.get $w) (v128.load offset=80 (local.get $row)))))
          (local.set $h (f32x4.add (local.get $h) (f32x4.mul (local.get $w) (v128.load offset=96 (local.get $row)))))
          (local.set $i (f32x4.add (local.get $i) (f32x4.mul (local.get $w) (v128.load offset=112 (local.get $row)))))
          (local.set $row (i32.add (local.get $row) (local.get $headBytes)))
          (if (i32.eqz (local.tee $left (i32.sub (local.get $left) (i32.const 1))))
            (then
              (local.set $left (local.get $block))
              (local.set $row (i32.add (local.get $row) (local.get $skip)))))
          (br_if $positions (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (local.get $end))))
        (v128.store (local.get $sums) (local.get $a))
        (v128.store offset=16 (local.get $sums) (local.get $b))
        (v128.store offset=32 (local.get $sums) (local.get $c))
        (v128.store offset=48 (local.get $sums) (local.get $e))
        (v128.store offset=64 (local.get $sums) (local.get $f))
        (v128.store offset=80 (local.get $sums) (local.get $g))
        (v128.store offset=96 (local.get $sums) (local.get $h))
        (v128.store offset=112 (local.get $sums) (local.get $i))
        (local.set $sums (i32.add (local.get $sums) (i32.const 128)))
        (local.set $d (i32.add (local.get $d) (i32.const 128)))
        (br $wide)))
    (block $narrowDone
      (loop $narrow
        (br_if $narrowDone (i32.ge_u (local.get $d) (local.get $headBytes)))
        (local.set $a (f32x4.mul (local.get $keep) (v128.load (local.get $sums))))
        (local.set $b (f32x4.mul (local.get $keep) (v128.load offset=16 (local.get $sums))))
        (local.set $at (local.get $scores))
        (local.set $row (i32.add (local.get $values) (local.get $d)))
        (local.set $left (local.get $block))
        (loop $positions
          (local.set $w (v128.load32_splat (local.get $at)))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $w) (v128.load (local.get $row)))))
          (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $w) (v128.load offset=16 (local.get $row)))))
          (local.set $row (i32.add (local.get $row) (local.get $headBytes)))
          (if (i32.eqz (local.tee $left (i32.sub (local.get $left) (i32.const 1))))
            (then
              (local.set $left (local.get $block))
              (local.set $row (i32.add (local.get $row) (local.get $skip)))))
          (br_if $positions (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (local.get $end))))
        (v128.store (local.get $sums) (local.get $a))
        (v128.store offset=16 (local.get $sums) (local.get $b))
        (local.set $sums (i32.add (local.get $sums) (i32.const 32)))
        (local.set $d (i32.add (local.get $d) (i32.const 32)))
        (br $narrow))))
)
