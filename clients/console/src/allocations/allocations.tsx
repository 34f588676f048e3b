import './allocations.css';
import type { ReactNode } from 'react';
import { Route, Switch } from 'wouter';
import { NotFound } from '../shell/not-found.js';
import { Detail } from './detail.js';
import { List } from './list.js';
import { NewPort } from './new.js';

/** The pages of ports. */
export default function Allocations(): ReactNode {
  return (
    <Switch>
      <Route path="/allocations">
        <List />
      </Route>
      <Route path="/allocations/new">
        <NewPort />
      </Route>
      <Route path="/allocations/:id/*?">{({ id }) => (/^[1-9]\d{0,15}$/.test(id) ? <Detail key={id} id={Number(id)} /> : <NotFound />)}</Route>
      <Route>
        <NotFound />
      </Route>
    </Switch>
  );
}
