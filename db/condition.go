package db

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jmoiron/sqlx"
)

// ErrPrecondition means that a row is not as the condition of [WithCondition] requires. Nothing was done.
var ErrPrecondition = errors.New("precondition failed")

// conditionKey is the key of the condition on rows of type T.
type conditionKey[T any] struct{}

// WithCondition returns a context whose calls change or delete a row of type T only if it holds for the row as it is
// then, locked against other changes until the call's end. Otherwise they return [ErrPrecondition].
//
// T is [Allocation], [APIKey], [Device], [Member], [User], [Organisation], [Rules] of an organisation, [OwnerQuota],
// [Settings] or [Webhook], and holds may look at what the table of the row has. A call that returns ErrNotFound or [ErrForbidden] does not ask it.
func WithCondition[T any](ctx context.Context, holds func(T) bool) context.Context {
	return context.WithValue(ctx, conditionKey[T]{}, holds)
}

// checkCondition checks the condition of ctx on the row that a query returns and locks, before the row is changed. If
// there is no such row, the change will tell.
func checkCondition[T any](ctx context.Context, tx *sqlx.Tx, query string, args ...any) error {
	holds, ok := ctx.Value(conditionKey[T]{}).(func(T) bool)
	if !ok {
		return nil
	}
	var row T
	switch err := tx.GetContext(ctx, &row, query, args...); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case !holds(row):
		return ErrPrecondition
	}
	return nil
}

// checkAllocation checks the condition of ctx on an allocation that the scope manages.
func checkAllocation(ctx context.Context, tx *sqlx.Tx, scope Scope, id int64) error {
	return checkCondition[Allocation](ctx, tx,
		allocationQuery+` WHERE a.id = $4 AND a.retires IS NULL AND `+manageable+` FOR NO KEY UPDATE OF a`, scope.args(id)...)
}
