! Tests of the Fortran binding alone, without a server: `make check`. What goes over the wire is
! tested by tests/conformance.
program check
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use penstock
  implicit none

  type(penstock_link) :: link
  type(penstock_simulation) :: sim
  real(real64), target :: u(6, 4), scalar
  real(real32), target :: f(3, 2, 2)
  real(real64) :: ignored
  integer :: code, k
  logical :: more

  call link%connect(alone=[penstock_value("a", 2.5_real64)], code=code)
  call expect(code == penstock_ok, "a program without a server connects")
  call link%layout("u", [6, 4], [1], [6, 4], code)
  call expect(code == penstock_layout_error, "a start that lacks an axis is an error")
  call expect(index(link%error(), "'u' needs a start") > 0, "the error names the field")
  call link%layout("u", [6, 4], [1, 2], [6, 4], code)
  call expect(index(link%error(), "axis 0") > 0, "axes are told in the campaign's order")
  call link%layout("u", [6, 4], [1, 1], [6, 4], code)
  call expect(code == penstock_ok, "a box that fits is taken")

  more = link%next(sim, code)
  call expect(more .and. code == penstock_ok, "there is one simulation")
  call expect(abs(sim%parameter("a") - 2.5_real64) < tiny(1.0), "a parameter has its value")
  call expect(abs(sim%parameter("z", 7.0_real64) - 7) < tiny(1.0), "or its default")
  ignored = sim%parameter("z", code=code)
  call expect(code == penstock_layout_error, "without a default it is an error")
  call expect(index(link%error(), "it has a.") > 0, "which names those that exist")
  do k = 1, 3
    call add(2)
    call sim%send(0.1_real64 * k, code)
    call expect(code == penstock_ok, "fields of several kinds and ranks are a step")
  end do
  call expect(.not. sim%cancelled(), "nobody cancels a program that runs alone")
  call sim%send(0.4_real64, code)
  call expect(code == penstock_layout_error, "a step without its fields is an error")
  call sim%add("u", u(:, 1:2))
  call add(1)
  call sim%send(0.5_real64, code)
  call expect(code == penstock_layout_error, "a field that is too short is an error")
  call sim%fail("no reason", code)
  call expect(code == penstock_ok, "a simulation can be given up")
  more = link%next(sim, code)
  call expect(.not. more .and. code == penstock_ok, "there is no second one")
  call link%close(code)
  call expect(code == penstock_ok, "the link closes")
  call link%close()
  more = link%next(sim, code)
  call expect(.not. more .and. code == penstock_layout_error, "a closed link gives nothing")
  call expect(index(link%error(), "closed") > 0, "and says so")
  print "(a)", "ok"

contains

  ! The fields of a step from the given one on: u, f and a number.
  subroutine add(from)
    integer, intent(in) :: from

    u = 1
    f = 2
    scalar = 3
    if (from > 1) call sim%add("u", u)
    call sim%add("f", f(1:3:2, :, :))  ! not side by side in memory
    call sim%add("scalar", scalar)
  end subroutine add

  subroutine expect(holds, what)
    logical, intent(in) :: holds
    character(len=*), intent(in) :: what

    if (holds) return
    print "(4a)", "It does not hold that ", what, ": ", link%error()
    error stop 1
  end subroutine expect
end program check
