# Sourced by test.sh: adds up what cargo's test programs said in a log.

# Lines like `test result: ok. 12 passed; 0 failed; 1 ignored; ...`.
sum_of() {
    awk -v word="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == word) total += $(i - 1) } END { print total + 0 }' "$2"
}

sum_passed() { sum_of passed "$1"; }
sum_failed() { sum_of failed "$1"; }

# In the same form, so that all failures are added up in one way.
count_failure() { printf 'test %s ... FAILED\ntest result: FAILED. 0 passed; 1 failed;\n' "$2" >>"$1"; }

failed_tests() { grep --extended-regexp '^test .* \.\.\. FAILED$' "$1" | sed 's/^/  /' || true; }
