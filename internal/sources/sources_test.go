package sources_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/sources"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestNetworks_AreWhatOneSubscriberMayHave(t *testing.T) {
	for address, want := range map[string][]string{
		"192.0.2.7":          {"192.0.2.7/32"},
		"::ffff:192.0.2.7":   {"192.0.2.7/32"},
		"2001:db8:1:203::7":  {"2001:db8:1:203::/64", "2001:db8:1:200::/56", "2001:db8:1::/48"},
		"fe80::1%eth0":       {"fe80::/64", "fe80::/56", "fe80::/48"},
		"2001:db8:1:2:3::9a": {"2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"},
	} {
		var got []string
		for _, network := range sources.Networks(addr(address)) {
			got = append(got, network.String())
		}
		if !slices.Equal(got, want) || sources.Of(addr(address)).String() != want[0] {
			t.Errorf("%s is counted in %v, want %v", address, got, want)
		}
	}
}

func TestSet_BoundsSourcesAndTheNetworksAroundThem(t *testing.T) {
	for name, c := range map[string]struct {
		from func(i int) string
		want int
	}{
		"one address":        {func(int) string { return "192.0.2.7" }, 10},
		"one address mapped": {func(int) string { return "::ffff:192.0.2.7" }, 10},
		"a /24 of IPv4":      {func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 200},
		"a /64":              {func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i) }, 10},
		"a /56":              {func(i int) string { return fmt.Sprintf("2001:db8:1:2%02x::1", i) }, 20},
		"a /48":              {func(i int) string { return fmt.Sprintf("2001:db8:1:%x00::1", i) }, 40},
	} {
		var set sources.Set[int]
		for i := range 200 {
			if from := addr(c.from(i)); set.Within(from, 10) {
				set.Add(i, from)
			}
		}
		if set.Len() != c.want {
			t.Errorf("%s has %d members, want %d", name, set.Len(), c.want)
		}
	}
}

func TestSet_BusiestIsTheOldestOfWhomHasMost(t *testing.T) {
	var set sources.Set[int]
	for i := range 100 {
		set.Add(i, addr(fmt.Sprintf("192.0.2.%d", i%20))) // Five each.
	}
	for i := range 7 {
		set.Add(100+i, addr(fmt.Sprintf("2001:db8:1:%d::1", i/2))) // Two each, seven of the /48.
	}
	for want := range 2 { // Then it has no more than others.
		for m := range set.Busiest() {
			if m != 100+2*want {
				t.Errorf("the busiest is %d", m)
			}
			set.Remove(m)
			break
		}
	}
	if set.Most() != 5 || set.Weight(addr("2001:db8:1:9::1")) != 5 || set.Count(addr("2001:db8:1:9::1")) != 0 {
		t.Errorf("%d, %d", set.Most(), set.Weight(addr("2001:db8:1:9::1")))
	}
}

func TestSet_ARenewedMemberIsTheNewestOfItsSource(t *testing.T) {
	var set sources.Set[int]
	for i := range 4 {
		set.Add(i, addr("192.0.2.7"))
	}
	var seen []int
	for m := range set.Busiest() {
		set.Renew(m)
		if seen = append(seen, m); len(seen) == 3 {
			break
		}
	}
	set.Renew(9) // It is not there.
	for m := range set.Busiest() {
		seen = append(seen, m)
	}
	if want := []int{0, 1, 2, 3, 0, 1, 2}; !slices.Equal(seen, want) || set.Len() != 4 {
		t.Errorf("%v, want %v", seen, want)
	}
}

func TestWithin_BoundsWhatSetsHaveTogether(t *testing.T) {
	for name, c := range map[string]struct {
		from func(i int) string
		want int
	}{
		"one address": {func(int) string { return "192.0.2.7" }, 10},
		"a /64":       {func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i) }, 10},
		"a /56":       {func(i int) string { return fmt.Sprintf("2001:db8:1:2%02x::1", i) }, 20},
		"a /48":       {func(i int) string { return fmt.Sprintf("2001:db8:1:%x00::1", i) }, 40},
	} {
		var sets [2]sources.Set[int]
		for i := range 200 {
			if from := addr(c.from(i)); sources.Within(from, 10, &sets[0], &sets[1]) {
				sets[i%2].Add(i, from)
			}
		}
		if n := sets[0].Len() + sets[1].Len(); n != c.want {
			t.Errorf("%s has %d members, want %d", name, n, c.want)
		}
	}
}

// It compares a set with a plain count of what it should hold.
func TestSet_CountsTheSameAfterAnyOrderOfChanges(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	from := func(i int) netip.Addr {
		if i%3 == 0 {
			return addr(fmt.Sprintf("192.0.2.%d", i%11))
		}
		return addr(fmt.Sprintf("2001:db8:%d:%x::1", i%5, i%17))
	}
	var set sources.Set[int]
	have := map[int]bool{}
	for range 20_000 {
		m := random.IntN(300)
		if random.IntN(2) == 0 {
			set.Add(m, from(m))
			have[m] = true
		} else if set.Remove(m) != have[m] {
			t.Fatalf("%d is there: %t", m, have[m])
		} else {
			delete(have, m)
		}
		counts := map[netip.Prefix]int{}
		for m := range have {
			networks := sources.Networks(from(m))
			counts[networks[len(networks)-1]]++
		}
		most := 0
		for _, n := range counts {
			most = max(most, n)
		}
		if set.Len() != len(have) || set.Most() != most {
			t.Fatalf("%d of %d, most %d of %d", set.Len(), len(have), set.Most(), most)
		}
		for m := range set.Busiest() {
			if !have[m] || set.Weight(from(m)) != most {
				t.Fatalf("%d is not of the busiest", m)
			}
		}
	}
}

func TestRates_SlowSourcesAndTheNetworksAroundThem(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		from func(i int) string
		want int // Of 2,000 events in 10 s.
	}{
		"one address":   {func(int) string { return "192.0.2.7" }, 5 + 100},
		"two addresses": {func(i int) string { return fmt.Sprintf("192.0.2.%d", i%2) }, 2 * (5 + 100)},
		"a /64":         {func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i) }, 5 + 100},
		"a /56":         {func(i int) string { return fmt.Sprintf("2001:db8:1:2%02x::1", i%256) }, 2 * (5 + 100)},
		"a /48":         {func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i*257%65536) }, 4 * (5 + 100)},
	} {
		rates, allowed := sources.NewRates(10, 5), 0
		for i := range 2000 {
			if rates.Allow(addr(c.from(i)), start.Add(time.Duration(i)*5*time.Millisecond)) {
				allowed++
			}
		}
		if allowed < c.want-4 || allowed > c.want {
			t.Errorf("%s: %d events, want %d", name, allowed, c.want)
		}
	}
}

func TestRates_EventsOfManyAreAllowedAllOrNone(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, from := range []netip.Addr{addr("192.0.2.7"), addr("2001:db8::1")} {
		rates := sources.NewRates(10, 20)
		if !rates.AllowN(from, 15, now) || rates.AllowN(from, 6, now) || !rates.AllowN(from, 5, now) ||
			rates.AllowN(from, 21, now.Add(time.Hour)) {
			t.Errorf("not 20 of %s", from)
		}
	}
}

func TestRates_ManySourcesTakeBoundedMemoryAndSilenceNobodyForLong(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	rates := sources.NewRates(10, 2)
	for i := range 1 << 17 {
		rates.Allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now.Add(time.Duration(i)*10*time.Microsecond))
	}
	if !rates.Allow(addr("192.0.2.7"), now.Add(3*time.Second)) {
		t.Error("another source is not served after the flood")
	}
}
