package sources_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/sources"
)

func TestTable_SaysWhoGivesWay(t *testing.T) {
	const limit = 64
	one, two := addr("192.0.2.1"), addr("192.0.2.2")
	silence := func(m int) time.Duration { return time.Duration(m%7) * time.Second }
	for name, c := range map[string]struct {
		fill func(*sources.Table[int])
		want int // -1: nobody.
	}{
		"nobody of an empty table": {func(*sources.Table[int]) {}, -1},
		"the oldest unproven one of the busiest source": {func(table *sources.Table[int]) {
			table.Add(1, two)
			table.Add(2, one)
			table.Add(3, one)
		}, 2},
		"an unproven one before many proven ones": {func(table *sources.Table[int]) {
			for m := range 20 {
				table.Add(m, one)
				table.Prove(m, one)
			}
			table.Add(20, two)
		}, 20},
		"the idlest proven one of the busiest source": {func(table *sources.Table[int]) {
			for m := range 12 {
				table.Add(m, one)
				table.Prove(m, one)
			}
		}, 6},
		"nobody of proven ones of sources with few": {func(table *sources.Table[int]) {
			for m := range limit {
				from := addr(fmt.Sprintf("192.0.2.%d", 10+m/sources.Few))
				table.Add(m, from)
				table.Prove(m, from)
			}
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var table sources.Table[int]
			c.fill(&table)
			m, ok := table.Evictable(addr("198.51.100.7"), limit, silence)
			if ok != (c.want >= 0) || ok && m != c.want {
				t.Fatalf("%d, %t", m, ok)
			}
			if before := table.Len(); ok && (!table.Remove(m) || table.Len() != before-1) {
				t.Error("it is not there")
			}
		})
	}
}
