//! Room for several tries at once, pinned, of a number that is chosen by its user.
//!
//! A try is the whole inside of the hedge once more. An array can't be pinned element by element without unsafe code, a chain
//! of structs can: `Chain<I, Chain<I, End>>` holds two.

use core::fmt;
use core::marker::PhantomData;
use core::pin::Pin;

use crate::executor::Executor;
use crate::pipeline::Next;

/// A number of hedges: `Hedges<1>` to `Hedges<7>`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hedges<const N: usize>;

/// A number of hedges that there is room for.
#[diagnostic::on_unimplemented(message = "a call has 1 to 7 hedges, not {Self}")]
pub trait Room {
    /// How many.
    const HEDGES: u32;

    /// Room for the first try and so many hedges.
    type Tries<I>: Tries<I>;
}

macro_rules! room {
    ($($hedges:literal: $tries:ty,)*) => {$(
        impl Room for Hedges<$hedges> {
            const HEDGES: u32 = $hedges;

            type Tries<I> = $tries;
        }
    )*};
}

room! {
    1: Chain<I, Chain<I, End>>,
    2: Chain<I, <Hedges<1> as Room>::Tries<I>>,
    3: Chain<I, <Hedges<2> as Room>::Tries<I>>,
    4: Chain<I, <Hedges<3> as Room>::Tries<I>>,
    5: Chain<I, <Hedges<4> as Room>::Tries<I>>,
    6: Chain<I, <Hedges<5> as Room>::Tries<I>>,
    7: Chain<I, <Hedges<6> as Room>::Tries<I>>,
}

/// Several tries, of which some are under way.
pub trait Tries<I> {
    /// None is.
    const NONE: Self;

    /// The place of a try: `None` within it where it isn't under way.
    fn place(self: Pin<&mut Self>, index: u32) -> Option<Pin<&mut Option<I>>>;

    /// Gives up those that are under way, the first try first: also when giving up one of them panics.
    fn reset<T, E, X, N>(self: Pin<&mut Self>, next: &mut N, executor: &X)
    where
        X: Executor,
        N: Next<T, E, X, State = I>;
}

/// The end of a chain.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct End;

impl<I> Tries<I> for End {
    const NONE: Self = Self;

    fn place(self: Pin<&mut Self>, _: u32) -> Option<Pin<&mut Option<I>>> {
        None
    }

    fn reset<T, E, X, N>(self: Pin<&mut Self>, _: &mut N, _: &X)
    where
        X: Executor,
        N: Next<T, E, X, State = I>,
    {
    }
}

pin_project_lite::pin_project! {
    /// A try, and those after it.
    pub struct Chain<I, R> {
        #[pin]
        first: Option<I>,
        #[pin]
        rest: R,
    }
}

impl<I, R: Tries<I>> Tries<I> for Chain<I, R> {
    const NONE: Self = Self { first: None, rest: R::NONE };

    #[inline]
    fn place(self: Pin<&mut Self>, index: u32) -> Option<Pin<&mut Option<I>>> {
        let this = self.project();
        match index.checked_sub(1) {
            None => Some(this.first),
            Some(index) => this.rest.place(index),
        }
    }

    fn reset<T, E, X, N>(self: Pin<&mut Self>, next: &mut N, executor: &X)
    where
        X: Executor,
        N: Next<T, E, X, State = I>,
    {
        let mut this = self.project();
        // A guard, so that the others are given up even if giving up this one panics.
        let guard = Others { rest: this.rest, next, executor, of: PhantomData };
        if let Some(state) = this.first.as_mut().as_pin_mut() {
            guard.next.reset(state, executor);
        }
        this.first.set(None);
    }
}

/// Gives up the rest of a chain when it is dropped.
struct Others<'t, T, E, X, N, R>
where
    X: Executor,
    N: Next<T, E, X>,
    R: Tries<N::State>,
{
    rest: Pin<&'t mut R>,
    next: &'t mut N,
    executor: &'t X,
    of: PhantomData<fn() -> (T, E)>,
}

impl<T, E, X, N, R> Drop for Others<'_, T, E, X, N, R>
where
    X: Executor,
    N: Next<T, E, X>,
    R: Tries<N::State>,
{
    fn drop(&mut self) {
        self.rest.as_mut().reset(self.next, self.executor);
    }
}

impl<I, R> fmt::Debug for Chain<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("first_runs", &self.first.is_some()).finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<I, R> defmt::Format for Chain<I, R> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Chain {{ first_runs: {} }}", self.first.is_some());
    }
}
