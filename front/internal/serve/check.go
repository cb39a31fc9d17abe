package serve

import (
	"errors"

	"github.com/seed454743b5/signin/front/internal/library"
	"github.com/seed454743b5/signin/front/internal/settings"
)

// Load reads the settings and reports every fault, without a network.
func Load(src settings.Source) (*settings.Config, []string, error) {
	c, rest, err := settings.Load(src)
	if err != nil {
		return nil, rest, err
	}
	var all settings.Faults
	for _, err := range []error{library.Check(c), CheckStore(c.Store)} {
		var faults settings.Faults
		if errors.As(err, &faults) {
			all = append(all, faults...)
		} else if err != nil {
			all = append(all, settings.Fault{Text: err.Error()})
		}
	}
	if len(all) > 0 {
		return nil, rest, all
	}
	return c, rest, nil
}
