! Streams the steps of a Fortran solver into a training campaign; solvers use it, and MPI programs
! penstock_mpi as well.
!
!     type(penstock_link) :: link
!     type(penstock_simulation) :: sim
!     call link%connect()
!     do while (link%next(sim))
!       do k = 1, n_steps
!         ...                                        ! real(real64), target :: u(n, n)
!         call sim%add("temperature", u)
!         call sim%send(t)
!         if (sim%cancelled()) exit
!       end do
!     end do
!     call link%close()
!
! Shapes, starts and indices are Fortran's: the first axis is contiguous, and counts begin with 1.
! A field that Fortran calls (nx, ny) is [ny, nx] in the campaign file, the same values in memory.
!
! What can fail has an optional `code`. Without it a failure ends the program, on all ranks, with
! the reason on stderr and in the campaign's report.
module penstock
  use, intrinsic :: iso_fortran_env, only: error_unit, int64, real32, real64
  use penstock_c
  use penstock_fields
  use penstock_texts
  implicit none
  private

  public :: penstock_link, penstock_simulation, penstock_value, penstock_ranks

  integer, parameter, public :: penstock_ok = 0, penstock_over = 1, penstock_layout_error = 2, &
    penstock_connection_lost = 3, penstock_refused = 4, penstock_system_error = 5
  integer, parameter, public :: penstock_train = 0, penstock_validation = 1, penstock_test = 2

  ! The MPI ranks of the program; penstock_mpi makes them.
  type :: penstock_ranks
    type(c_ranks) :: c
  end type penstock_ranks

  ! A parameter of a program that runs alone.
  type :: penstock_value
    character(len=name_length) :: name = ""
    real(real64) :: value = 0
  end type penstock_value

  type :: penstock_link
    private
    type(c_ptr) :: c = c_null_ptr  ! given back by the next connect: errors are read after close
    character(len=:), allocatable :: mistake  ! an error that C never saw
  contains
    procedure :: connect, next, close => close_link, abandon, error
    procedure, private :: layout_box, layout_indices
    generic :: layout => layout_box, layout_indices
  end type penstock_link

  ! `add` is the field list's.
  type, extends(field_list) :: penstock_simulation
    private
    type(c_ptr) :: c = c_null_ptr, link = c_null_ptr
  contains
    procedure :: id, seed, attempt, role, parameter => parameter_of, wanted
    procedure, private :: empty32, empty64
    generic :: empty => empty32, empty64
    procedure :: inputs, send, cancelled, end => end_simulation, fail
  end type penstock_simulation

contains

  ! -- the link ----------------------------------------------------------------------------------

  ! Connects this process to the campaign that started the program; collective. alone: what a run
  ! without PENSTOCK_COORDINATOR in the environment simulates.
  subroutine connect(self, ranks, alone, code)
    class(penstock_link), intent(inout) :: self
    type(penstock_ranks), intent(in), optional :: ranks
    type(penstock_value), intent(in), optional :: alone(:)
    integer, intent(out), optional :: code
    character(kind=c_char), allocatable, target :: names(:, :)
    type(c_value), allocatable :: values(:)
    integer(c_int) :: found
    integer :: i, n

    call c_free(self%c)
    self%c = c_null_ptr
    n = 0
    if (present(alone)) n = size(alone)
    allocate (names(name_length + 1, n), values(n))
    do i = 1, n
      names(:, i) = named(alone(i)%name)
      values(i) = c_value(c_loc(names(1, i)), alone(i)%value)
    end do
    if (present(ranks)) then
      found = c_connect(self%c, ranks%c, values, int(n, c_size_t))
    else
      found = c_connect(self%c, alone=values, n_alone=int(n, c_size_t))
    end if
    call told(self, found, code)
  end subroutine connect

  ! Says which box of a field this rank owns: its first indices, from 1, and its lengths.
  subroutine layout_box(self, field, global_shape, start, extent, code)
    class(penstock_link), intent(inout) :: self
    character(len=*), intent(in) :: field
    integer, intent(in) :: global_shape(:), start(:), extent(:)
    integer, intent(out), optional :: code
    integer(c_int64_t) :: s(size(global_shape)), a(size(start)), n(size(extent))

    if (allocated(self%mistake)) deallocate (self%mistake)
    if (size(start) /= size(s) .or. size(extent) /= size(s)) then
      self%mistake = "The layout of '" // field // &
        "' needs a start and an extent for each axis of its global shape."
      call told(self, int(penstock_layout_error, c_int), code)
      return
    end if
    s = global_shape(size(s):1:-1)
    a = start(size(s):1:-1) - 1
    n = extent(size(s):1:-1)
    call told(self, c_layout_box(self%c, c_text(field), size(s), s, a, n), code)
  end subroutine layout_box

  ! The same for flat indices into the global field, from 1, in the order of its elements.
  subroutine layout_indices(self, field, global_shape, indices, code)
    class(penstock_link), intent(inout) :: self
    character(len=*), intent(in) :: field
    integer, intent(in) :: global_shape(:)
    integer(int64), intent(in) :: indices(:)
    integer, intent(out), optional :: code
    integer(c_int64_t) :: s(size(global_shape)), flat(size(indices))

    s = global_shape(size(s):1:-1)
    flat = indices - 1
    call told(self, c_layout_indices(self%c, c_text(field), size(s), s, flat, &
                                       size(flat, kind=c_size_t)), code)
  end subroutine layout_indices

  ! The next simulation, or .false. if there are no more; ends the one before. Collective.
  logical function next(self, sim, code)
    class(penstock_link), intent(inout) :: self
    type(penstock_simulation), intent(inout) :: sim
    integer, intent(out), optional :: code
    integer(c_int) :: found

    call sim%clear()
    sim%link = self%c
    found = c_next(self%c, sim%c)
    next = found == penstock_ok
    if (found == penstock_over) found = penstock_ok
    call told(self, found, code)
  end function next

  ! Ends the running simulation, waits for acknowledgements, says goodbye. May be called twice.
  subroutine close_link(self, code)
    class(penstock_link), intent(inout) :: self
    integer, intent(out), optional :: code

    if (present(code)) code = penstock_ok
    if (c_associated(self%c)) call told(self, c_close(self%c), code)
  end subroutine close_link

  ! For a program that cannot go on: tells the campaign the reason and ends every rank of a
  ! parallel program.
  subroutine abandon(self, reason)
    class(penstock_link), intent(inout) :: self
    character(len=*), intent(in) :: reason

    if (c_associated(self%c)) call c_abandon(self%c, c_text(reason))
  end subroutine abandon

  ! The last error as a sentence.
  function error(self)
    class(penstock_link), intent(in) :: self
    character(len=:), allocatable :: error

    if (allocated(self%mistake)) then
      error = self%mistake
    else
      error = f_text(c_error(self%c))
    end if
  end function error

  ! -- a simulation ------------------------------------------------------------------------------

  integer(int64) function id(self)
    class(penstock_simulation), intent(in) :: self
    id = c_id(self%c)
  end function id

  ! The same in all attempts.
  integer(int64) function seed(self)
    class(penstock_simulation), intent(in) :: self
    seed = c_seed(self%c)
  end function seed

  ! 1 for the first.
  integer(int64) function attempt(self)
    class(penstock_simulation), intent(in) :: self
    attempt = c_attempt(self%c)
  end function attempt

  ! penstock_train, penstock_validation or penstock_test.
  integer function role(self)
    class(penstock_simulation), intent(in) :: self
    role = c_role_of(self%c)
  end function role

  ! A parameter by name. One that does not exist has the default, and without one it is a failure.
  real(real64) function parameter_of(self, name, default, code)
    class(penstock_simulation), intent(in) :: self
    character(len=*), intent(in) :: name
    real(real64), intent(in), optional :: default
    integer, intent(out), optional :: code
    integer(c_size_t) :: i

    if (present(default)) then
      do i = 0, c_n_parameters(self%c) - 1
        if (f_text(c_parameter_name(self%c, i)) == name) exit
      end do
      if (i == c_n_parameters(self%c)) then
        parameter_of = default
        if (present(code)) code = penstock_ok
        return
      end if
    end if
    parameter_of = 0
    call told_of(self%link, c_parameter(self%c, c_text(name), parameter_of), code)
  end function parameter_of

  ! Whether the shards still need the step, counted from 1, after the campaign's `every`. All steps
  ! are to be computed and sent in any case.
  logical function wanted(self, step)
    class(penstock_simulation), intent(in) :: self
    integer, intent(in) :: step
    wanted = c_wanted(self%c, int(step - 1, c_int32_t)) /= 0
  end function wanted

  ! This rank's part of all input fields that were added; before the first step.
  subroutine inputs(self, code)
    class(penstock_simulation), intent(inout) :: self
    integer, intent(out), optional :: code
    type(added), allocatable, target :: fields(:)

    call self%take(fields)
    call told_of(self%link, c_inputs(self%c, arrays(fields), size(fields, kind=c_size_t)), code)
  end subroutine inputs

  ! Memory for this rank's part of a field of the next step, n values side by side, for a solver
  ! that computes a large field straight into it. Added and sent, it leaves from there without a
  ! copy if the campaign wants the field whole and in this kind, and else copied as usual. Its
  ! content is arbitrary. The same memory until it is sent; after that it may be read, not written,
  ! until the next of its field is sent or the simulation is over. For a shape of your own:
  !
  !     real(real32), pointer :: values(:), u(:, :)
  !     call sim%empty("temperature", n * n, values)
  !     u(1:n, 1:n) => values
  subroutine empty32(self, name, n, values, code)
    class(penstock_simulation), intent(inout) :: self
    character(len=*), intent(in) :: name
    integer, intent(in) :: n
    real(real32), pointer, intent(out) :: values(:)
    integer, intent(out), optional :: code
    type(c_ptr) :: found
    integer(c_int) :: failure

    failure = c_empty(self%c, c_text(name), int(n, c_size_t), f32, found)
    call told_of(self%link, failure, code)
    nullify (values)
    if (failure == penstock_ok) call c_f_pointer(found, values, [n])
  end subroutine empty32

  subroutine empty64(self, name, n, values, code)
    class(penstock_simulation), intent(inout) :: self
    character(len=*), intent(in) :: name
    integer, intent(in) :: n
    real(real64), pointer, intent(out) :: values(:)
    integer, intent(out), optional :: code
    type(c_ptr) :: found
    integer(c_int) :: failure

    failure = c_empty(self%c, c_text(name), int(n, c_size_t), f64, found)
    call told_of(self%link, failure, code)
    nullify (values)
    if (failure == penstock_ok) call c_f_pointer(found, values, [n])
  end subroutine empty64

  ! This rank's part of all fields of one step, which were added; waits while the server has no
  ! room. A steady problem has no t.
  subroutine send(self, t, code)
    class(penstock_simulation), intent(inout) :: self
    real(real64), intent(in), optional :: t
    integer, intent(out), optional :: code
    type(added), allocatable, target :: fields(:)
    real(c_double) :: time

    time = c_no_time()
    if (present(t)) time = t
    call self%take(fields)
    call told_of(self%link, c_send(self%c, time, arrays(fields), size(fields, kind=c_size_t)), code)
  end subroutine send

  ! Whether the server wants no more of it: leave the loop. Collective.
  logical function cancelled(self)
    class(penstock_simulation), intent(in) :: self
    cancelled = c_cancelled(self%c) /= 0
  end function cancelled

  ! The simulation is complete; next and close say so too.
  subroutine end_simulation(self, code)
    class(penstock_simulation), intent(in) :: self
    integer, intent(out), optional :: code
    call told_of(self%link, c_end(self%c), code)
  end subroutine end_simulation

  ! The solver gives this simulation up; the reason stands in the report. The link goes on.
  subroutine fail(self, reason, code)
    class(penstock_simulation), intent(in) :: self
    character(len=*), intent(in) :: reason
    integer, intent(out), optional :: code
    call told_of(self%link, c_fail(self%c, c_text(reason)), code)
  end subroutine fail

  ! -- failures -----------------------------------------------------------------------------------


  ! Gives the code to a caller who asked for it, and ends the program of one who did not.
  subroutine told(link, found, code)
    class(penstock_link), intent(in) :: link
    integer(c_int), intent(in) :: found
    integer, intent(out), optional :: code

    if (present(code)) then
      code = found
    else if (found /= penstock_ok) then
      call give_up(link%c, link%error())
    end if
  end subroutine told

  ! The same for a call on a simulation.
  subroutine told_of(link, found, code)
    type(c_ptr), intent(in) :: link
    integer(c_int), intent(in) :: found
    integer, intent(out), optional :: code

    if (present(code)) then
      code = found
    else if (found /= penstock_ok) then
      call give_up(link, f_text(c_error(link)))
    end if
  end subroutine told_of

  subroutine give_up(link, why)
    type(c_ptr), intent(in) :: link
    character(len=*), intent(in) :: why

    write (error_unit, "(2a)") "penstock: ", why
    if (c_associated(link)) call c_abandon(link, c_text(why))
    error stop 3
  end subroutine give_up
end module penstock
