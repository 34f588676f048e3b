package handler

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// labelKey is the pattern of keys, which the contract can give in prose only.
var labelKey = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$`)

// toLabels checks the keys of labels. The contract's validation has checked their number and their values.
func toLabels(labels *types.Labels) (db.Labels, error) {
	if labels == nil || len(*labels) == 0 {
		return "", nil
	}
	for _, key := range slices.Sorted(maps.Keys(*labels)) {
		if !labelKey.MatchString(key) {
			return "", problem.Invalid(problem.Field("labels", fmt.Sprintf(
				"has the key %q; a key has 1 to 63 lower-case letters, digits and . _ / - with a letter or digit at both ends", key)))
		}
	}
	text, err := json.Marshal(*labels)
	return db.Labels(text), err
}

// readLabels returns the labels of an allocation, which are an object also if there are none.
func readLabels(labels db.Labels) types.Labels {
	read := types.Labels{}
	if labels != "" {
		// The database holds no others.
		_ = json.Unmarshal([]byte(labels), &read)
	}
	return read
}

// labelFilters converts the parameter `label`.
func labelFilters(parameters *[]string) (filters []db.LabelFilter) {
	for _, parameter := range valueOr(parameters, nil) {
		filter := db.LabelFilter{Key: parameter}
		if key, value, found := strings.Cut(parameter, "="); found {
			filter = db.LabelFilter{Key: key, Value: &value}
		}
		filters = append(filters, filter)
	}
	return filters
}
