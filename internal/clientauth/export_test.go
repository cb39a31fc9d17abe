package clientauth

// What the tests know of the inside.
const (
	MaxAssertion = maxAssertion
	LoadTimeout  = loadTimeout
	RenewEvery   = renewEvery
	RenewEarly   = renewEarly
	RenewPause   = renewPause
	ReloadPause  = reloadPause
)

var (
	AlgorithmsFor = algorithmsFor
	FixedWidth    = fixedWidth
)
