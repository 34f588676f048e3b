//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// promise is how soon something must be back after a fault, as parts of the goal: in
// every case, and in the median of at least medianCount cases. 0: no promise.
type promise struct{ worst, median float64 }

const medianCount = 10

// lateFrom is the part of the goal after which a port is named that is back late.
const lateFrom = 0.7

// promises are what is promised beyond the goal, by fault. With the default goal of 5 s
// players are back from the death of a tunnel server after 3.5 s at most and 2 s in the
// median, and everything is back 3 s after a blackout.
var promises = map[string]map[string]promise{
	"tunnel server killed":               {whatPlayers: {worst: 0.7, median: 0.4}},
	"tunnel server killed in a blackout": {whatPlayers: {worst: 0.7, median: 0.4}},
	"panels and Postgres down":           {whatChannels: {worst: 0.6}, whatListening: {worst: 0.6}, whatChange: {worst: 0.6}},
}

// limit returns how soon something must be back after a fault.
func limit(fault, what string, goal time.Duration) time.Duration {
	if p := promises[fault][what]; p.worst > 0 {
		return part(p.worst, goal)
	}
	return goal
}

// within is the same limit for everything.
func within(d time.Duration) func(what string) time.Duration {
	return func(string) time.Duration { return d }
}

func part(of float64, goal time.Duration) time.Duration { return time.Duration(of * float64(goal)) }

// slowMedians says which medians are above what is promised.
func slowMedians(results []result, goal time.Duration) []string {
	samples := map[string]map[string][]time.Duration{}
	for _, r := range results {
		for what, d := range r.Took {
			if promises[r.Fault][what].median == 0 {
				continue
			}
			if samples[r.Fault] == nil {
				samples[r.Fault] = map[string][]time.Duration{}
			}
			samples[r.Fault][what] = append(samples[r.Fault][what], d)
		}
	}
	var slow []string
	for _, fault := range slices.Sorted(maps.Keys(samples)) {
		for what, all := range samples[fault] {
			slices.Sort(all)
			most, median := part(promises[fault][what].median, goal), all[len(all)/2]
			if len(all) >= medianCount && median > most {
				slow = append(slow, fmt.Sprintf("%s: %s back after %v in the median, not within %v", fault, what, median.Round(time.Millisecond), most))
			}
		}
	}
	return slow
}
