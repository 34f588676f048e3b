package db

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Sort is the order of a list.
type Sort struct {
	By         string // A sort key of the list, by its name in the contract.
	Descending bool
}

// Position is a place in a list: the sort key of a row and its id, as text. The row need not exist any more. Postgres
// refuses the list if they are not of the types of these.
type Position struct{ Key, ID string }

// Listing selects a part of a list in some order. Rows with the same sort key are in the order of their ids.
type Listing struct {
	Sort  Sort
	After *Position // nil means from the start.
	Limit int       // The maximum number of rows; 0 means all.
}

// sortKey is what a list can be sorted by: an expression, and the same of a value that is ? here. An index has it.
type sortKey struct{ column, value string }

// selection is a query whose conditions depend on what is asked for.
type selection struct {
	conditions []string
	args       []any
}

// fill returns a part of the query with the values for each ? in it.
func (s *selection) fill(text string, values ...any) string {
	for _, value := range values {
		s.args = append(s.args, value)
		text = strings.Replace(text, "?", "$"+strconv.Itoa(len(s.args)), 1)
	}
	return text
}

// where adds a condition with the values for each ? in it.
func (s *selection) where(condition string, values ...any) {
	s.conditions = append(s.conditions, s.fill(condition, values...))
}

// page adds the condition of the position, and returns the order and the limit of a list whose rows have an id.
func (s *selection) page(l Listing, keys map[string]sortKey, id sortKey) (order, limit string, err error) {
	key, ok := keys[l.Sort.By]
	if !ok {
		return "", "", fmt.Errorf("no list is sorted by %q", l.Sort.By)
	}
	direction, follows := "ASC", ">"
	if l.Sort.Descending {
		direction, follows = "DESC", "<"
	}
	if l.After != nil {
		s.where(`(`+key.column+`, `+id.column+`) `+follows+` (`+key.value+`, `+id.value+`)`, l.After.Key, l.After.ID)
	}
	order = ` ORDER BY ` + key.column + ` ` + direction + `, ` + id.column + ` ` + direction
	return order, s.fill(` LIMIT nullif(?::bigint, 0)`, l.Limit), nil
}

// all returns the conditions, of which there is at least one.
func (s *selection) all() string { return strings.Join(s.conditions, ` AND `) }

// contains is the condition that a text in lower case, whose collation is "C", contains ? in any case.
func contains(text string) string { return `strpos(` + text + `, lower(?::text) COLLATE "C") > 0` }

// lowerName is the sort key of names.
func lowerName(column string) sortKey {
	return sortKey{`lower(` + column + `) COLLATE "C"`, `lower(?::text) COLLATE "C"`}
}

// OwnerFilter selects devices by their owner, and allocations by that of their device. nil means any.
type OwnerFilter struct {
	UserID, OrganisationID *int64
}

// where adds the conditions on devices with an alias.
func (f OwnerFilter) where(s *selection, alias string) {
	if f.UserID != nil {
		s.where(alias+`.owner_id = ?::bigint`, *f.UserID)
	}
	if f.OrganisationID != nil {
		s.where(alias+`.organisation_id = ?::bigint`, *f.OrganisationID)
	}
}

// maxWide is how many lists are read at a time that may have to look at every row of a large table. Only admins read
// such lists; others wait, and leave the processors of the database to players' devices.
const maxWide = 2

// search calls fn, after its turn if it is wide.
func (d *DB) search(ctx context.Context, wide bool, fn func(ctx context.Context) error) error {
	if !wide {
		return fn(ctx)
	}
	ctx, cancel := d.requests.bounded(ctx) // The wait for others included.
	defer cancel()
	select {
	case d.wide <- struct{}{}:
		defer func() { <-d.wide }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return fn(ctx)
}
