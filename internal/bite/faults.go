package main

// faults are single faults of the protocol that docs/protocol.md describes.
var faults = []fault{
	{
		"a lease is taken over a second early", "internal/once/lease.go",
		"case time.Since(w.since) >= LeaseStale:", "case time.Since(w.since) >= LeaseStale-time.Second:",
	},
	{
		"a waiter does not begin again when the store fails", "internal/once/lease.go",
		"	w.seen = nil\n	if w.failing", "	if w.failing",
	},
	{
		"nobody beats", "internal/once/lease.go",
		"				l.beat(ctx)\n				l.give()", "				l.give()",
	},
	{
		"a beat does not compare", "internal/once/lease.go",
		"		found, swapped, err := l.swap(ctx, l.value, next)\n",
		"		now, _ := ReadFresh(ctx, l.store, l.Key)\n		found, swapped, err := l.swap(ctx, now, next)\n",
	},
	{
		"a lease ends whoever has it", "internal/once/lease.go",
		"	for range 2 {\n		found, swapped, err := l.swap(ctx, l.value, outcome)\n",
		"	if outcome == nil {\n		return Delete(ctx, l.store, l.Key)\n	}\n	for range 2 {\n		found, swapped, err := l.swap(ctx, l.value, outcome)\n",
	},
	{
		"a lease is not proved before the request", "internal/once/lease.go",
		"	for since(l.proved) >= LeaseStale/2 {", "	for since(l.proved) >= time.Hour {",
	},
	{
		"a beat proves, however long it took", "internal/once/lease.go",
		"		if err := l.beat(ctx); err != nil {\n			return err\n		}\n	}\n	return nil",
		"		return l.beat(ctx)\n	}\n	return nil",
	},
	{
		"a lease that is gone is put back, however late", "internal/once/lease.go",
		"			if since(l.proved) >= LeaseStale {", "			if false {",
	},
	{
		"a beat that is found is a proof", "internal/once/lease.go",
		"		case swapped:\n			l.value, l.proved = next, start\n", "		case swapped, bytes.Equal(found, next):\n			l.value, l.proved = next, start\n",
	},
	{
		"the lease is proved before the connection stands", "internal/oidc/token.go",
		"		req.Body = &provedBody{ReadCloser: req.Body, ready: func() error { return ready(ctx) }}",
		"		if err := ready(ctx); err != nil {\n			return nil, nil, nil, err\n		}",
	},
	{
		"the claim is written after the redemption", "redeem.go",
		"	claim, outcome, err := once.Resume(ctx, rd.store, key, claimLifetime, isUnfinished)\n	if err != nil {\n		return nil, err\n	}\n",
		"	early, earlyErr := rd.redeem(ctx, meta, in, nil)\n	claim, outcome, err := once.Resume(ctx, rd.store, key, claimLifetime, isUnfinished)\n	if err != nil {\n		return nil, err\n	}\n" +
			"	if outcome == nil {\n		left := []byte{claimFailed}\n		if earlyErr == nil {\n			left = append([]byte{claimDone}, rd.keys.Seal(\"claim\", in.b.secret, []byte(key), append([]byte{byte(early.unmet)}, early.secret...))...)\n		}\n" +
			"		rd.endClaim(ctx, claim, left)\n		return early, earlyErr\n	}\n",
	},
	{
		"a code is redeemed though its claim is orphaned", "redeem.go",
		"	case claim.Orphaned:", "	case claim.Orphaned && claim.Followed:",
	},
	{
		"no second look at the index", "records.go",
		"	if err == nil && !there {", "	if false && err == nil && !there {",
	},
	{
		"the second look does not look for a mark", "index.go",
		"if began.before(l.Mark) || !slices.ContainsFunc(", "if !slices.ContainsFunc(",
	},
	{
		"the record is written before the index", "records.go",
		"		if err := rs.enter(ctx, places, entry, instead, began); err != nil {\n			return err\n		}\n		return rs.write(ctx, s)",
		"		if err := rs.write(ctx, s); err != nil {\n			return err\n		}\n		return rs.enter(ctx, places, entry, instead, began)",
	},
	{
		"a record is written again under the same key", "records.go",
		"		s.secret = seal.Random(secretLen)\n", "		if s.secret == nil {\n			s.secret = seal.Random(secretLen)\n		}\n",
	},
	{
		"a sign-out deletes before it leaves its mark, and not again", "index.go",
		"		if err == nil {\n			err = e.endThose(ctx, marked)\n		}\n", "",
	},
	{
		"a sign-out does not count", "index.go",
		"			l.mark(mark, e.records.now())\n", "			l.mark(nil, e.records.now())\n",
	},
	{
		"an update brings a session back that has ended", "records.go",
		"		case found == nil:\n			return nil, errSessionEnded\n",
		"		case found == nil:\n			once.Swap(ctx, rs.store, s.key, nil, written, time.Hour)\n			return nil, errSessionEnded\n",
	},
	{
		"nothing is read again under the lease", "refresh.go",
		"	s, err := g.records.fresh(ctx, g.s.secret)\n	if err != nil {\n		return nil, err\n	}\n	if s == nil {\n		return nil, g.req.needs(ReasonSignIn, \"\", nil)\n	}\n	g.s = s\n",
		"	s := g.s\n",
	},
	{
		"the lease ends though the save goes on", "refresh.go",
		"	x.h.passed = true", "	x.h.passed = false",
	},
	{
		"a save that fails is given up", "refresh.go",
		"	x.s = x.saveLater(", "	return true\n	x.s = x.saveLater(",
	},
	{
		"a refused refresh token is not looked for again", "refresh.go",
		"	case now.record.Refresh != x.s.record.Refresh:", "	case false:",
	},
	{
		"a store that fails is nobody signed in", "session.go",
		"	sealed, ok, err := sc.records.getKnown(ctx, key, known)\n	if err != nil {\n		return nil, err\n	}\n",
		"	sealed, ok, err := sc.records.getKnown(ctx, key, known)\n	if err != nil {\n		return nil, nil\n	}\n",
	},
	{
		"a replica refreshes without a lease", "tokens.go",
		"	l, err := once.Exclude(ctx, store, key, ttl)\n", "	l, err := once.Exclude(ctx, store, key+seal.Encode(seal.Random(8)), ttl)\n",
	},
}
