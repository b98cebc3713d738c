;; Scans an L2 table of 8-byte entries for runs: src/table-scanner.ts, which says what it means; src/extents.ts does the same in TypeScript.
(module
  (memory (export "memory") 1)

  ;; Entries [from, to) of the table at byte `table`, each as two little-endian words, high one first. Writes a column of f64 each at `starts`,
  ;; `ends` and `hosts`, and a column of bytes at `kinds`. Returns the number of runs; -1 when an entry has a bit of `refused`, or data at
  ;; `fileEnd` or behind it.
  (func (export "scan")
    (param $table i32) (param $from i32) (param $to i32)
    (param $guest f64) (param $clusterBytes f64) (param $cluster i64)
    (param $refused i64) (param $fileEnd i64)
    (param $starts i32) (param $ends i32) (param $hosts i32) (param $kinds i32)
    (result i32)
    (local $at i32) (local $last i32) (local $count i32) (local $kind i32) (local $open i32)
    (local $entry i64) (local $host i64) (local $next i64)
    (local.set $at (i32.add (local.get $table) (i32.shl (local.get $from) (i32.const 3))))
    (local.set $last (i32.add (local.get $table) (i32.shl (local.get $to) (i32.const 3))))
    (local.set $open (i32.const -1))
    (block $done
      (loop $entries
        (br_if $done (i32.ge_u (local.get $at) (local.get $last)))
        (local.set $entry (i64.rotl (i64.load (local.get $at)) (i64.const 32)))
        (if (i64.ne (i64.and (local.get $entry) (i64.const 0x4000000000000000)) (i64.const 0))
          (then
            (local.set $kind (i32.const 2))
            (local.set $host (i64.const 0)))
          (else
            (if (i64.ne (i64.and (local.get $entry) (local.get $refused)) (i64.const 0))
              (then (return (i32.const -1))))
            (local.set $host (i64.and (local.get $entry) (i64.const 0x00fffffffffffe00)))
            ;; with the zero flag 3, and 4 when there is a host cluster; without it 0 and 1
            (local.set $kind
              (i32.add
                (i32.mul (i32.wrap_i64 (i64.and (local.get $entry) (i64.const 1))) (i32.const 3))
                (i64.ne (local.get $host) (i64.const 0))))
            (if (i32.and
                  (i32.eq (local.get $kind) (i32.const 1))
                  (i64.ge_u (local.get $host) (local.get $fileEnd)))
              (then (return (i32.const -1))))))
        (if (i32.or
              (i32.ne (local.get $kind) (local.get $open))
              (i32.and
                (i32.or
                  (i32.eq (local.get $kind) (i32.const 1))
                  (i32.eq (local.get $kind) (i32.const 4)))
                (i64.ne (local.get $host) (local.get $next))))
          (then
            (f64.store (local.get $starts) (local.get $guest))
            (f64.store (local.get $hosts) (f64.convert_i64_u (local.get $host)))
            (i32.store8 (i32.add (local.get $kinds) (local.get $count)) (local.get $kind))
            (if (local.get $count)
              (then
                (f64.store (local.get $ends) (local.get $guest))
                (local.set $ends (i32.add (local.get $ends) (i32.const 8)))))
            (local.set $starts (i32.add (local.get $starts) (i32.const 8)))
            (local.set $hosts (i32.add (local.get $hosts) (i32.const 8)))
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (local.set $open (local.get $kind))))
        (local.set $next (i64.add (local.get $host) (local.get $cluster)))
        (local.set $guest (f64.add (local.get $guest) (local.get $clusterBytes)))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br $entries)))
    (if (local.get $count) (then (f64.store (local.get $ends) (local.get $guest))))
    (local.get $count)))
