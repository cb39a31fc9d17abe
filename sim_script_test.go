package signin

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// simStep is one thing that somebody does to the world: a user, an
// administrator, the issuer, or the adversary.
type simStep struct {
	at   time.Duration // after the beginning
	op   string        // one of simOps
	a, b int           // whom it concerns
	d    time.Duration // how long it lasts
	id   int           // names the random choices made on its account
}

func (s simStep) String() string {
	return fmt.Sprintf("%v %s %d %d %v %d", s.at, s.op, s.a, s.b, s.d, s.id)
}

// simScript is all that happens in one world. What the world is follows from
// its seed.
type simScript struct {
	seed  uint64
	steps []simStep
}

func (s simScript) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n", s.seed)
	for _, step := range s.steps {
		fmt.Fprintln(&b, step)
	}
	return b.String()
}

// readScript reads what String wrote. A line that begins with # is a comment.
func readScript(text string) (s simScript, err error) {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "seed "):
			_, err = fmt.Sscanf(line, "seed %d", &s.seed)
		default:
			var step simStep
			var at, d string
			_, err = fmt.Sscan(line, &at, &step.op, &step.a, &step.b, &d, &step.id)
			if err == nil {
				step.at, err = time.ParseDuration(at)
			}
			if err == nil {
				step.d, err = time.ParseDuration(d)
			}
			if err == nil && simOps[step.op].run == nil {
				err = fmt.Errorf("there is no %q", step.op)
			}
			s.steps = append(s.steps, step)
		}
		if err != nil {
			return s, fmt.Errorf("%q: %w", line, err)
		}
	}
	return s, lines.Err()
}

// simOp is a kind of step.
type simOp struct {
	weight  int           // how often it is drawn
	fault   bool          // whether it is the adversary's
	longest time.Duration // of simStep.d
	run     func(w *simWorld, s simStep)
}

// newScript draws the script of a seed. Some worlds are calm, for what goes
// wrong without any trouble must be seen too; most have one sort of trouble or
// two; some have all.
func newScript(seed uint64) simScript {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := simScript{seed: seed}
	var users, faults []string
	for _, name := range simOpNames {
		if op := simOps[name]; op.fault {
			faults = append(faults, name)
		} else {
			users = append(users, name)
		}
	}
	rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	kinds := [...]int{0, 1, 1, 2, 2, 3, 4, len(faults)}
	faults = faults[:kinds[rng.IntN(len(kinds))]]
	trouble := 0.15 + 0.35*rng.Float64()
	var at time.Duration
	for id, last := 1, 12+rng.IntN(40); id <= last; id++ {
		at += simGap(rng)
		pool := users
		if len(faults) > 0 && rng.Float64() < trouble {
			pool = faults
		}
		name := simDraw(rng, pool)
		step := simStep{at: at, op: name, a: rng.IntN(1 << 10), b: rng.IntN(1 << 10), id: id}
		if longest := simOps[name].longest; longest > 0 {
			step.d = time.Duration(float64(longest) * rng.Float64() * rng.Float64()).Round(time.Millisecond)
		}
		s.steps = append(s.steps, step)
	}
	return s
}

// simGap is how long nothing new happens. Races need steps within one another's
// milliseconds, and expiry needs minutes.
func simGap(rng *rand.Rand) time.Duration {
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	switch p := rng.Float64(); {
	case p < 0.55:
		return between(0, 20*time.Millisecond)
	case p < 0.75:
		return between(20*time.Millisecond, time.Second)
	case p < 0.93:
		return between(time.Second, 10*time.Second)
	case p < 0.97:
		return between(10*time.Second, time.Minute)
	}
	return between(time.Minute, 12*time.Minute)
}

func simDraw(rng *rand.Rand, names []string) string {
	total := 0
	for _, n := range names {
		total += simOps[n].weight
	}
	n := rng.IntN(total)
	for _, name := range names {
		if n -= simOps[name].weight; n < 0 {
			return name
		}
	}
	panic("weights")
}

// shrinkScript drops steps, and shortens gaps, as long as the script still fails.
func shrinkScript(s simScript, fails func(simScript) bool) simScript {
	for size := max(len(s.steps)/2, 1); ; size /= 2 {
		for from := 0; from < len(s.steps); {
			shorter := simScript{seed: s.seed}
			shorter.steps = append(shorter.steps, s.steps[:from]...)
			shorter.steps = append(shorter.steps, s.steps[min(from+size, len(s.steps)):]...)
			if fails(shorter) {
				s = shorter
			} else {
				from += size
			}
		}
		if size <= 1 {
			return s
		}
	}
}
